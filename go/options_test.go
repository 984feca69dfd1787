package dwcpml

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"
)

func TestAddressesChooseTheTransport(t *testing.T) {
	for address, want := range map[string]struct {
		protocol Protocol
		target   string
	}{
		"localhost:8501":        {"", "http://localhost:8501"},
		"127.0.0.1:8501":        {"", "http://127.0.0.1:8501"},
		"[::1]:8501":            {"", "http://[::1]:8501"},
		"models":                {"", "http://models"},
		"https://models/prefix": {"", "https://models/prefix"},
		"grpc://localhost:8502": {"", "grpc://localhost:8502"},
		"grpcs://models:443":    {GRPC, "grpcs://models:443"},
		"127.0.0.1:8502":        {GRPC, "grpc://127.0.0.1:8502"},
		"http://models:80":      {HTTP, "http://models:80"},
	} {
		if got, err := parseAddress(address, want.protocol); err != nil || got.String() != want.target {
			t.Errorf("%q is %v, %v; want %s", address, got, err, want.target)
		}
	}
}

func TestInvalidAddressesAreRejected(t *testing.T) {
	for address, says := range map[string]string{
		"":                             "no host",
		"://":                          "not an address",
		"ftp://models:21":              "ftp",
		"unix:///run/models.sock":      "unix",
		"grpc://models":                "no port",
		"grpc://models:1/path":         "path",
		"http://models?x=1":            "only",
		"http://models:port":           "not an address",
		"http://user:secret@models:80": "a password",
		"http://user:secret@models:x":  "a password",
	} {
		_, err := NewModelInferenceClient(address)
		if problem := wantError(t, err, ErrInvalidInput, says); strings.Contains(problem.Message, "secret") {
			t.Errorf("the error shows a password: %s", problem)
		}
	}
	_, err := NewModelInferenceClientWithOptions("grpc://models:1", WithProtocol(HTTP))
	wantError(t, err, ErrInvalidInput, "contradicts WithProtocol")
}

func TestOptionsOutOfRangeAreRejected(t *testing.T) {
	for says, option := range map[string]Option{
		"WithTimeout":                   WithTimeout(0),
		"WithAttempts":                  WithAttempts(0),
		"WithBackoff":                   WithBackoff(0, time.Second),
		"shorter than the initial wait": WithBackoff(2*time.Second, time.Second),
		"WithMaxLinks":                  WithMaxLinks(-1),
		"WithMaxIdleConnections":        WithMaxIdleConnections(0),
		"WithProtocol":                  WithProtocol("smtp"),
		"WithTLSConfig":                 WithTLSConfig(nil),
		"no model":                      WithModelVersion("bandwidth", "1"),
		"can't be a version":            WithModelVersion(BandwidthPredictor, "../1"),
		"WithLibrary does not apply":    WithLibrary("libonnxruntime.so"),
		"Option{}":                      {},
	} {
		_, err := NewModelInferenceClientWithOptions("models:1", option)
		wantError(t, err, ErrInvalidInput, says)
	}
	_, err := NewLocalModels(t.TempDir(), WithTimeout(time.Second))
	wantError(t, err, ErrInvalidInput, "WithTimeout does not apply")
	_, err = NewLocalModels(t.TempDir(), WithLibrary(""))
	wantError(t, err, ErrInvalidInput, "WithLibrary")
}

func TestBothTransportsTakeCertificates(t *testing.T) {
	for _, address := range []string{"https://127.0.0.1:1", "grpcs://127.0.0.1:1"} {
		dial(t, address, WithTLSConfig(&tls.Config{MinVersion: tls.VersionTLS13}))
	}
}
