package dwcpml

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"ml.dwcp.io/dwcpml/internal/feedback"
	"ml.dwcp.io/dwcpml/internal/inference"
)

// scriptedHTTP is a V1 server that returns one reply after the other, the last one repeatedly, and records
// what it was sent.
type scriptedHTTP struct {
	*httptest.Server
	mutex    sync.Mutex
	script   []scriptedReply
	requests []seenRequest
}

type scriptedReply struct {
	status  int
	body    string
	headers map[string]string
	hangUp  bool
	delay   time.Duration
}

type seenRequest struct {
	method, path string
	header       http.Header
	body         string
}

func newScriptedHTTP(t *testing.T, script ...scriptedReply) *scriptedHTTP {
	t.Helper()
	server := &scriptedHTTP{script: script}
	server.Server = httptest.NewServer(http.HandlerFunc(server.serve))
	t.Cleanup(server.Close)
	return server
}

func (s *scriptedHTTP) serve(writer http.ResponseWriter, request *http.Request) {
	body, _ := io.ReadAll(request.Body)
	s.mutex.Lock()
	reply := s.script[min(len(s.requests), len(s.script)-1)]
	s.requests = append(s.requests, seenRequest{request.Method, request.URL.Path, request.Header, string(body)})
	s.mutex.Unlock()
	if reply.delay > 0 {
		select {
		case <-time.After(reply.delay):
		case <-request.Context().Done():
		}
	}
	if reply.hangUp {
		connection, _, _ := http.NewResponseController(writer).Hijack()
		_ = connection.(*net.TCPConn).SetLinger(0)
		_ = connection.Close()
		return
	}
	writer.Header().Set(headerRequestID, request.Header.Get(headerRequestID))
	for name, value := range reply.headers {
		writer.Header().Set(name, value)
	}
	writer.WriteHeader(reply.status)
	_, _ = io.WriteString(writer, reply.body)
}

func (s *scriptedHTTP) seen() []seenRequest {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return append([]seenRequest(nil), s.requests...)
}

func ok(body string) scriptedReply { return scriptedReply{status: http.StatusOK, body: body} }

func failing(status int, message string) scriptedReply {
	body, _ := json.Marshal(map[string]string{"error": message})
	return scriptedReply{status: status, body: string(body)}
}

// scriptedGRPC is a V2 server that responds with one function after the other, the last repeatedly.
type scriptedGRPC struct {
	inference.UnimplementedGRPCInferenceServiceServer
	feedback.UnimplementedFeedbackServer
	address  string
	mutex    sync.Mutex
	script   []grpcReply
	requests []*inference.ModelInferRequest
	metadata []metadata.MD
	notReady bool
	reports  []*feedback.ReportOutcomesRequest
	refusal  error // of the next report
}

type grpcReply func(*inference.ModelInferRequest) (*inference.ModelInferResponse, error)

func newScriptedGRPC(t *testing.T, script ...grpcReply) *scriptedGRPC {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fake := &scriptedGRPC{address: "grpc://" + listener.Addr().String(), script: script}
	server := grpc.NewServer()
	inference.RegisterGRPCInferenceServiceServer(server, fake)
	feedback.RegisterFeedbackServer(server, fake)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return fake
}

func (s *scriptedGRPC) ModelInfer(
	ctx context.Context, request *inference.ModelInferRequest,
) (*inference.ModelInferResponse, error) {
	incoming, _ := metadata.FromIncomingContext(ctx)
	s.mutex.Lock()
	reply := s.script[min(len(s.requests), len(s.script)-1)]
	s.requests = append(s.requests, request)
	s.metadata = append(s.metadata, incoming)
	s.mutex.Unlock()
	_ = grpc.SetHeader(ctx, metadata.Pairs("x-request-id", incoming.Get("x-request-id")[0]))
	return reply(request)
}

func (s *scriptedGRPC) ReportOutcomes(
	_ context.Context, request *feedback.ReportOutcomesRequest,
) (*feedback.ReportOutcomesResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.reports = append(s.reports, request)
	refusal := s.refusal
	s.refusal = nil
	return &feedback.ReportOutcomesResponse{Counted: 1}, refusal
}

func (s *scriptedGRPC) ModelReady(
	context.Context, *inference.ModelReadyRequest,
) (*inference.ModelReadyResponse, error) {
	return &inference.ModelReadyResponse{Ready: !s.notReady}, nil
}

// scriptedTransport returns one error after the other, and then predictions.
type scriptedTransport struct {
	mutex      sync.Mutex
	problems   []*Error
	prediction Prediction
	calls      []*modelCall
	closed     bool
}

func (s *scriptedTransport) infer(_ context.Context, call *modelCall) ([]Prediction, *Error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.calls = append(s.calls, call)
	if len(s.problems) > 0 {
		problem := s.problems[0]
		s.problems = s.problems[1:]
		return nil, problem
	}
	return []Prediction{s.prediction}, nil
}

func (s *scriptedTransport) ready(context.Context, *modelCall) *Error { return nil }

func (s *scriptedTransport) report(context.Context, *modelCall, *outcomeReport) *Error { return nil }

func (s *scriptedTransport) close() error {
	s.closed = true
	return nil
}

// watchedClient is a client on a scripted transport whose waits take no time and are recorded.
type watchedClient struct {
	*ModelInferenceClient
	transport *scriptedTransport
	waits     []time.Duration
}

func newWatchedClient(t *testing.T, problems []*Error, options ...Option) *watchedClient {
	t.Helper()
	config, err := newSettings(forClient, options)
	if err != nil {
		t.Fatal(err)
	}
	fake := &scriptedTransport{problems: problems, prediction: Prediction{"next_throughput_mbps": float32(5)}}
	watched := &watchedClient{ModelInferenceClient: newClient(fake, config), transport: fake}
	watched.remote.jitter = func() float64 { return 1 }
	watched.remote.pause = func(_ context.Context, wait time.Duration) error {
		watched.waits = append(watched.waits, wait)
		return nil
	}
	return watched
}

func dial(t *testing.T, address string, options ...Option) *ModelInferenceClient {
	t.Helper()
	client, err := NewModelInferenceClientWithOptions(address, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func observation(first float64) []float64 { return []float64{first, 2.3, 150, 0.01, 1, 2, 65536} }

// wantError fails unless err is an *Error of this kind whose text holds each of the words.
func wantError(t *testing.T, err, kind error, words ...string) *Error {
	t.Helper()
	var problem *Error
	if !errors.As(err, &problem) || !errors.Is(err, kind) {
		t.Fatalf("got the error %v, want one of kind %v", err, kind)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Fatalf("the error %q does not say %q", err, word)
		}
	}
	return problem
}
