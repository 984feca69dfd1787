package dwcpml

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var nan = math.NaN()

const bandwidthAnswer = `{"predictions":[{"next_throughput_mbps":123.4000015258789}]}`

func TestTheFourCallsOverHTTP(t *testing.T) {
	server := newScriptedHTTP(t,
		ok(bandwidthAnswer),
		ok(`{"predictions":[{"compression_level":3,"probabilities":[0,0,0,1,0,0,0,0,0,0]}]}`),
		ok(`{"predictions":[{"is_anomaly":true,"anomaly_score":0.625}]}`),
		ok(`{"predictions":[{"reconstruction_error":0.25,"is_high_latency":true}]}`),
	)
	client := dial(t, server.URL)
	ctx := context.Background()
	if got, err := client.PredictBandwidth(ctx, observation(10.5)); err != nil || got != float64(float32(123.4)) {
		t.Errorf("PredictBandwidth: %v, %v", got, err)
	}
	if got, err := client.SelectCompression(ctx, make([]float64, 6)); err != nil || got != 3 {
		t.Errorf("SelectCompression: %v, %v", got, err)
	}
	if failing, score, err := client.DetectAnomaly(ctx, make([]float64, 6)); err != nil || !failing || score != 0.625 {
		t.Errorf("DetectAnomaly: %v, %v, %v", failing, score, err)
	}
	if high, err := client.DetectHighLatency(ctx, make([]float64, 20)); err != nil || !high {
		t.Errorf("DetectHighLatency: %v, %v", high, err)
	}
	row := "[10.5,2.3,150,0.01,1,2,65536]"
	rows := strings.TrimSuffix(strings.Repeat(row+",", 10), ",")
	zeros := func(n int) string { return strings.TrimSuffix(strings.Repeat("0,", n), ",") }
	for at, want := range []struct{ path, body string }{
		{"/v1/models/bandwidth_predictor:predict", "[[" + rows + "]]"},
		{"/v1/models/compression_selector:predict", "[[" + zeros(6) + "]]"},
		{"/v1/models/reliability_detector:predict", "[[" + zeros(6) + "]]"},
		{"/v1/models/consensus_latency:predict", "[[" + zeros(20) + "]]"},
	} {
		seen := server.seen()[at]
		if seen.method != http.MethodPost || seen.path != want.path {
			t.Errorf("request %d went to %s %s", at, seen.method, seen.path)
		}
		if body := `{"instances":` + want.body + `}`; seen.body != body {
			t.Errorf("request %d was %s, want %s", at, seen.body, body)
		}
		if seen.header.Get("Content-Type") != "application/json" {
			t.Errorf("request %d has the headers %v", at, seen.header)
		}
	}
}

func TestHeadersHaveTheRequestLinkAndTime(t *testing.T) {
	server := newScriptedHTTP(t, ok(bandwidthAnswer))
	client := dial(t, server.URL)
	at := time.Date(2026, 1, 2, 4, 4, 5, 600_000_000, time.FixedZone("east", 3600))
	ctx := WithObservedAt(WithLink(WithRequestID(context.Background(), "r-1"), "n1/n2"), at)
	for _, ctx := range []context.Context{ctx, context.Background()} {
		if _, err := client.PredictBandwidth(ctx, observation(1)); err != nil {
			t.Fatal(err)
		}
	}
	full, bare := server.seen()[0].header, server.seen()[1].header
	for name, want := range map[string]string{
		"X-Request-Id": "r-1", "X-DWCP-Link": "n1/n2", "X-DWCP-Observed-At": "2026-01-02T03:04:05.6Z",
	} {
		if got := full.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if bare.Get("X-Request-Id") == "" || bare.Values("X-DWCP-Link") != nil || bare.Values("X-DWCP-Observed-At") != nil {
		t.Errorf("a plain call has the headers %v", bare)
	}
}

func TestAnErrorContainsTheServersMessage(t *testing.T) {
	for status, kind := range map[int]error{
		400: ErrInvalidInput, 404: ErrModelNotFound, 413: ErrTooLarge, 500: ErrUnavailable,
		302: ErrBadResponse, 403: ErrBadResponse, 504: ErrTimeout,
	} {
		server := newScriptedHTTP(t, failing(status, "the third feature is odd"))
		_, err := dial(t, server.URL).PredictBandwidth(WithRequestID(context.Background(), "r-9"), observation(1))
		problem := wantError(t, err, kind, "the third feature is odd", "r-9")
		if problem.Code != status || problem.Model != BandwidthPredictor || problem.RequestID != "r-9" {
			t.Errorf("got %+v", problem)
		}
		if sent := len(server.seen()); sent != 1 {
			t.Errorf("%d: %d requests were sent, want 1", status, sent)
		}
	}
}

func TestAServerThatIsNotReadyIsCalledAgain(t *testing.T) {
	notReady := failing(503, "draining")
	notReady.headers = map[string]string{"Retry-After": "0"}
	server := newScriptedHTTP(t, notReady, ok(bandwidthAnswer))
	if _, err := dial(t, server.URL).PredictBandwidth(context.Background(), observation(1)); err != nil {
		t.Fatal(err)
	}
	if sent := len(server.seen()); sent != 2 {
		t.Fatalf("%d requests were sent, want 2", sent)
	}
	tired := newScriptedHTTP(t, failing(503, "draining"))
	_, err := dial(t, tired.URL, WithAttempts(2)).PredictBandwidth(context.Background(), observation(1))
	wantError(t, err, ErrNotReady, "draining")
	if sent := len(tired.seen()); sent != 2 {
		t.Fatalf("%d requests were sent, want 2", sent)
	}
}

func TestAConnectionThatIsResetIsTriedAgain(t *testing.T) {
	server := newScriptedHTTP(t, scriptedReply{hangUp: true}, scriptedReply{hangUp: true}, ok(bandwidthAnswer))
	if _, err := dial(t, server.URL).PredictBandwidth(context.Background(), observation(1)); err != nil {
		t.Fatal(err)
	}
	if sent := len(server.seen()); sent != 3 {
		t.Fatalf("%d requests were sent, want 3", sent)
	}
}

func TestDeadIdleConnectionsCostNoAttempt(t *testing.T) {
	var used sync.Map
	fake := &scriptedHTTP{script: []scriptedReply{ok(bandwidthAnswer)}}
	dying := &scriptedHTTP{script: []scriptedReply{{hangUp: true}}}
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		if _, again := used.LoadOrStore(request.RemoteAddr, true); again {
			dying.serve(writer, request)
			return
		}
		fake.serve(writer, request)
	}))
	defer server.Close()
	client := dial(t, server.URL, WithAttempts(1))
	for range 5 {
		if _, err := client.PredictBandwidth(context.Background(), observation(1)); err != nil {
			t.Fatal(err)
		}
	}
	if len(dying.seen()) == 0 {
		t.Fatal("no idle connection was used")
	}
	if keys := fake.seen()[0].header.Values("Idempotency-Key"); keys != nil {
		t.Errorf("the header was sent: %q", keys)
	}
}

func TestAClosedPort(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	for _, scheme := range []string{"http://", "grpc://"} {
		client := dial(t, scheme+address)
		_, err = client.PredictBandwidth(context.Background(), observation(1))
		problem := wantError(t, err, ErrUnavailable, "can't be reached", "refused")
		if problem.Code != 0 || problem.RequestID == "" {
			t.Errorf("got %+v", problem)
		}
	}
}

func TestATruncatedResponseIsAnError(t *testing.T) {
	cut := ok(bandwidthAnswer)
	cut.headers = map[string]string{"Content-Length": "500"}
	server := newScriptedHTTP(t, cut)
	_, err := dial(t, server.URL).PredictBandwidth(context.Background(), observation(1))
	wantError(t, err, ErrUnavailable, "was cut off")
	if sent := len(server.seen()); sent != 1 {
		t.Fatalf("%d requests were sent, want 1", sent)
	}
}

func TestAResponseThatIsTooLargeIsRejected(t *testing.T) {
	server := newScriptedHTTP(t, ok(strings.Repeat(" ", 2<<20)))
	_, err := dial(t, server.URL).PredictBandwidth(context.Background(), observation(1))
	wantError(t, err, ErrBadResponse, "has more than")
}

func TestTheDefaultTimeoutEndsACallWithoutADeadline(t *testing.T) {
	slow := ok(bandwidthAnswer)
	slow.delay = time.Minute
	server := newScriptedHTTP(t, slow)
	_, err := dial(t, server.URL, WithTimeout(30*time.Millisecond)).PredictBandwidth(context.Background(), observation(1))
	wantError(t, err, ErrTimeout)
	wantError(t, err, context.DeadlineExceeded)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	_, err = dial(t, server.URL, WithTimeout(time.Hour)).PredictBandwidth(ctx, observation(1))
	wantError(t, err, ErrTimeout)
}

func TestConnectionsAreKept(t *testing.T) {
	var opened atomic.Int64
	fake := &scriptedHTTP{script: []scriptedReply{ok(bandwidthAnswer)}}
	server := httptest.NewUnstartedServer(http.HandlerFunc(fake.serve))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	client := dial(t, server.URL, WithTimeout(time.Minute))
	const workers = 8
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			ctx := WithLink(context.Background(), fmt.Sprint(worker))
			for range 25 {
				if _, err := client.PredictBandwidth(ctx, observation(1)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if count := opened.Load(); count > 2*workers {
		t.Errorf("%d connections were opened for %d callers", count, workers)
	}
}

func TestReadyOverHTTP(t *testing.T) {
	for body, kind := range map[string]error{
		`{"name":"bandwidth_predictor","ready":true}`:                                    nil,
		`{"name":"bandwidth_predictor","ready":false}`:                                   ErrNotReady,
		`{"model_version_status":[{"version":"1","state":"AVAILABLE"}]}`:                 nil,
		`{"model_version_status":[{"version":"2","state":"LOADING"}]}`:                   ErrNotReady,
		`{"model_version_status":[{"state":"END"},{"version":"1","state":"AVAILABLE"}]}`: nil,
		`{}`:   ErrBadResponse,
		`page`: ErrBadResponse,
	} {
		server := newScriptedHTTP(t, ok(body))
		err := dial(t, server.URL).Ready(context.Background(), BandwidthPredictor)
		if kind == nil && err != nil {
			t.Errorf("%s: %v", body, err)
		} else if kind != nil {
			wantError(t, err, kind)
		}
		if path := server.seen()[0].path; path != "/v1/models/bandwidth_predictor" {
			t.Errorf("it called %s", path)
		}
	}
}

func TestAVersionAndAPathGoIntoTheAddress(t *testing.T) {
	server := newScriptedHTTP(t, ok(bandwidthAnswer))
	client := dial(t, server.URL+"/models/", WithModelVersion(BandwidthPredictor, "2026-1"))
	if _, err := client.PredictBandwidth(context.Background(), observation(1)); err != nil {
		t.Fatal(err)
	}
	want := "/models/v1/models/bandwidth_predictor/versions/2026-1:predict"
	if path := server.seen()[0].path; path != want {
		t.Fatalf("it called %s, want %s", path, want)
	}
}
