package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ml.dwcp.io/dwcpml/internal/load"
)

func TestRun(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		if !strings.HasSuffix(request.URL.Path, "/reliability_detector:predict") {
			writer.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = writer.Write([]byte(`{"predictions":[{"is_anomaly":true,"anomaly_score":0.5}]}`))
	}))
	defer server.Close()
	body := filepath.Join(t.TempDir(), "body.json")
	if err := os.WriteFile(body, []byte(`{"instances":[[99.2,1.5,0.02,40,3.1,85]]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	short := []string{"-body", body, "-rate", "200", "-duration", "100ms", "-connections", "2"}
	raw := []string{"-url", server.URL + "/v1/models/reliability_detector:predict"}
	client := []string{"-mode", "client", "-address", server.URL, "-model", "reliability_detector"}
	for name, example := range map[string]struct {
		arguments []string
		status    int
		good      uint64
		code      string
		says      string
	}{
		"raw":           {raw, 0, 20, "", ""},
		"client":        {client, 0, 20, "", ""},
		"not found":     {[]string{"-url", server.URL + "/none"}, 1, 0, "404", "No request"},
		"invalid":       {[]string{"-mode", "client", "-address", server.URL, "-model", "bandwidth_predictor"}, 1, 0, "invalid_input", "No request"},
		"no mode":       {append(raw, "-mode", "none"), 2, 0, "", "no mode"},
		"no url":        {nil, 2, 0, "", "-url"},
		"no model":      {[]string{"-mode", "client"}, 2, 0, "", "-model"},
		"no target":     {[]string{"-mode", "client", "-model", "reliability_detector"}, 1, 0, "", "-address"},
		"no file":       {append(raw, "-body", "none"), 1, 0, "", "none"},
		"TLS":           {[]string{"-url", "https://models/x"}, 1, 0, "", "not http://"},
		"no connection": {append(raw, "-connections", "0"), 2, 0, "", "above 0"},
		"an argument":   {append(raw, "more"), 2, 0, "", "no arguments"},
	} {
		t.Run(name, func(t *testing.T) {
			var output, stderr bytes.Buffer
			status := run(context.Background(), append(append([]string{}, short...), example.arguments...), &output, &stderr)
			if status != example.status || !strings.Contains(stderr.String(), example.says) {
				t.Fatalf("exit status %d: %s", status, &stderr)
			}
			if example.good == 0 && example.code == "" {
				return
			}
			var report load.Report
			if err := json.Unmarshal(output.Bytes(), &report); err != nil {
				t.Fatal(err)
			}
			if report.Good != example.good || example.code != "" && report.Errors[example.code] != 20 {
				t.Fatalf("it printed %s", &output)
			}
		})
	}
	var stderr bytes.Buffer
	if status := run(context.Background(), raw, nil, &stderr); status != 2 || !strings.Contains(stderr.String(), "-body") {
		t.Fatalf("exit status %d: %s", status, &stderr)
	}
}
