package dwcpml

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"ml.dwcp.io/dwcpml/internal/feedback"
	"ml.dwcp.io/dwcpml/internal/inference"
)

// grpcTransport implements the V2 protocol.
type grpcTransport struct {
	connection *grpc.ClientConn
	stub       inference.GRPCInferenceServiceClient
	feedback   feedback.FeedbackClient
	versions   map[string]string
}

func newGRPCTransport(target *url.URL, config *settings) (*grpcTransport, error) {
	security := insecure.NewCredentials()
	if target.Scheme == "grpcs" {
		security = credentials.NewTLS(config.tls)
	}
	// Reconnect soon after a failure: until then, the client's own attempts fail at once.
	reconnect := backoff.Config{
		BaseDelay: config.backoff, Multiplier: 1.6, Jitter: 0.2, MaxDelay: config.maxBackoff,
	}
	connection, err := grpc.NewClient(
		"dns:///"+target.Host,
		grpc.WithTransportCredentials(security),
		grpc.WithDisableRetry(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: grpcPingAfter, Timeout: pingTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: 5 * time.Second}),
	)
	if err != nil {
		return nil, invalid("", "%q is not an address: %s", target.Host, err)
	}
	return &grpcTransport{
		connection: connection,
		stub:       inference.NewGRPCInferenceServiceClient(connection),
		feedback:   feedback.NewFeedbackClient(connection),
		versions:   config.versions,
	}, nil
}

func (t *grpcTransport) infer(ctx context.Context, call *modelCall) ([]Prediction, *Error) {
	spec := call.spec
	shape := []int64{int64(len(call.instances))}
	for _, length := range spec.Input.Shape {
		shape = append(shape, int64(length))
	}
	request := &inference.ModelInferRequest{
		ModelName:    spec.Name,
		ModelVersion: t.versions[spec.Name],
		Id:           call.requestID,
		Inputs: []*inference.ModelInferRequest_InferInputTensor{
			{Name: spec.Input.Name, Datatype: "FP32", Shape: shape},
		},
		RawInputContents: [][]byte{packFloats(call.instances)},
	}
	var seen received
	limit := responseBytesBase + responseBytesPerInstance*len(call.instances)
	response, err := t.stub.ModelInfer(
		outgoing(ctx, call), request, append(seen.options(), grpc.MaxCallRecvMsgSize(limit))...)
	if err != nil {
		return nil, seen.problem(err)
	}
	call.version = response.GetModelVersion()
	predictions, problem := decodeTensors(spec, response, len(call.instances))
	if problem != nil {
		problem.RequestID = seen.first(headerRequestID)
	}
	return predictions, problem
}

func (t *grpcTransport) ready(ctx context.Context, call *modelCall) *Error {
	var seen received
	request := &inference.ModelReadyRequest{
		Name: call.spec.Name, Version: t.versions[call.spec.Name],
	}
	response, err := t.stub.ModelReady(outgoing(ctx, call), request, seen.options()...)
	if err != nil {
		return seen.problem(err)
	}
	if !response.GetReady() {
		return &Error{
			kind: ErrNotReady, Message: "the model is not ready", RequestID: seen.first(headerRequestID),
		}
	}
	return nil
}

func (t *grpcTransport) report(ctx context.Context, call *modelCall, report *outcomeReport) *Error {
	prediction, outcome := toFloat(report.Prediction), toFloat(report.Outcome)
	request := &feedback.ReportOutcomesRequest{
		ModelName: call.spec.Name,
		Outcomes: []*feedback.Outcome{
			{Id: report.ID, Version: report.Version, Prediction: &prediction, Outcome: &outcome},
		},
	}
	var seen received
	if _, err := t.feedback.ReportOutcomes(outgoing(ctx, call), request, seen.options()...); err != nil {
		return seen.problem(err)
	}
	return nil
}

func (t *grpcTransport) close() error { return t.connection.Close() }

func outgoing(ctx context.Context, call *modelCall) context.Context {
	headers := metadata.MD{}
	call.headers(func(name, value string) { headers.Set(name, value) })
	return metadata.NewOutgoingContext(ctx, headers)
}

// received is the metadata of a response, from its header and its trailer.
type received struct {
	header, trailer metadata.MD
}

func (r *received) options() []grpc.CallOption {
	return []grpc.CallOption{grpc.Header(&r.header), grpc.Trailer(&r.trailer)}
}

func (r *received) first(name string) string {
	for _, values := range [][]string{r.header.Get(name), r.trailer.Get(name)} {
		if len(values) > 0 {
			return values[0]
		}
	}
	return ""
}

// httpStatus is the HTTP status of each gRPC status; others are 500.
var httpStatus = map[codes.Code]int{
	codes.InvalidArgument:    http.StatusBadRequest,
	codes.FailedPrecondition: http.StatusBadRequest,
	codes.OutOfRange:         http.StatusBadRequest,
	codes.NotFound:           http.StatusNotFound,
	codes.ResourceExhausted:  http.StatusRequestEntityTooLarge,
	codes.Unavailable:        http.StatusServiceUnavailable,
	codes.Canceled:           http.StatusServiceUnavailable, // by a server that stops; the caller has a done context
	codes.DeadlineExceeded:   http.StatusGatewayTimeout,
	codes.Unauthenticated:    http.StatusUnauthorized,
	codes.PermissionDenied:   http.StatusForbidden,
	codes.Unimplemented:      http.StatusNotImplemented,
}

func (r *received) problem(err error) *Error {
	grpcStatus := status.Convert(err)
	answered := r.header.Len()+r.trailer.Len() > 0
	if grpcStatus.Code() == codes.Unavailable && !answered {
		problem := unreachable(err, !strings.Contains(grpcStatus.Message(), "certificate"))
		problem.Message = "the server can't be reached: " + grpcStatus.Message()
		return problem
	}
	code, known := httpStatus[grpcStatus.Code()]
	if !known {
		code = http.StatusInternalServerError
	}
	problem := rejection(code, grpcStatus.Message(), r.first(headerRequestID), r.first("retry-after"))
	if grpcStatus.Code() == codes.DeadlineExceeded {
		// gRPC sends the deadline with the call: if the server enforces it first, it is still the caller's.
		problem.cause = context.DeadlineExceeded
	}
	return problem
}
