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
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"ml.dwcp.io/dwcpml/internal/inference"
)

// grpcTransport speaks the V2 protocol.
type grpcTransport struct {
	connection *grpc.ClientConn
	stub       inference.GRPCInferenceServiceClient
	versions   map[string]string
}

func newGRPCTransport(target *url.URL, settled *settings) (*grpcTransport, error) {
	security := insecure.NewCredentials()
	if target.Scheme == "grpcs" {
		security = credentials.NewTLS(settled.tls)
	}
	// A dead connection is tried again soon: the client's own attempts fail at once meanwhile.
	soon := backoff.Config{
		BaseDelay: settled.backoff, Multiplier: 1.6, Jitter: 0.2, MaxDelay: settled.longestBackoff,
	}
	connection, err := grpc.NewClient(
		"dns:///"+target.Host,
		grpc.WithTransportCredentials(security),
		grpc.WithDisableRetry(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: soon, MinConnectTimeout: 5 * time.Second}),
	)
	if err != nil {
		return nil, invalid("", "%q is not an address: %s", target.Host, err)
	}
	stub := inference.NewGRPCInferenceServiceClient(connection)
	return &grpcTransport{connection: connection, stub: stub, versions: settled.versions}, nil
}

func (t *grpcTransport) infer(ctx context.Context, question *call) ([]Answer, *Error) {
	spec := question.spec
	shape := []int64{int64(len(question.instances))}
	for _, length := range spec.Input.Shape {
		shape = append(shape, int64(length))
	}
	request := &inference.ModelInferRequest{
		ModelName:    spec.Name,
		ModelVersion: t.versions[spec.Name],
		Id:           question.requestID,
		Inputs: []*inference.ModelInferRequest_InferInputTensor{
			{Name: spec.Input.Name, Datatype: "FP32", Shape: shape},
		},
		RawInputContents: [][]byte{packFloats(question.instances)},
	}
	var seen received
	limit := answerBytesBase + answerBytesPerInstance*len(question.instances)
	response, err := t.stub.ModelInfer(
		outgoing(ctx, question), request, append(seen.options(), grpc.MaxCallRecvMsgSize(limit))...)
	if err != nil {
		return nil, seen.problem(err)
	}
	answers, problem := decodeTensors(spec, response, len(question.instances))
	if problem != nil {
		problem.RequestID = seen.first(headerRequestID)
	}
	return answers, problem
}

func (t *grpcTransport) ready(ctx context.Context, question *call) *Error {
	var seen received
	request := &inference.ModelReadyRequest{
		Name: question.spec.Name, Version: t.versions[question.spec.Name],
	}
	response, err := t.stub.ModelReady(outgoing(ctx, question), request, seen.options()...)
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

func (t *grpcTransport) close() error { return t.connection.Close() }

func outgoing(ctx context.Context, question *call) context.Context {
	headers := metadata.MD{}
	question.headers(func(name, value string) { headers.Set(name, value) })
	return metadata.NewOutgoingContext(ctx, headers)
}

// received is the metadata that came with an answer, whichever end of it.
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

// httpStatus is what each status of gRPC is called over HTTP; other ones are 500.
var httpStatus = map[codes.Code]int{
	codes.InvalidArgument:    http.StatusBadRequest,
	codes.FailedPrecondition: http.StatusBadRequest,
	codes.OutOfRange:         http.StatusBadRequest,
	codes.NotFound:           http.StatusNotFound,
	codes.ResourceExhausted:  http.StatusRequestEntityTooLarge,
	codes.Unavailable:        http.StatusServiceUnavailable,
	codes.DeadlineExceeded:   http.StatusGatewayTimeout,
	codes.Unauthenticated:    http.StatusUnauthorized,
	codes.PermissionDenied:   http.StatusForbidden,
	codes.Unimplemented:      http.StatusNotImplemented,
}

func (r *received) problem(err error) *Error {
	said := status.Convert(err)
	answered := r.header.Len()+r.trailer.Len() > 0
	if said.Code() == codes.Unavailable && !answered {
		problem := unreachable(err, !strings.Contains(said.Message(), "certificate"))
		problem.Message = "the server can't be reached: " + said.Message()
		return problem
	}
	code, known := httpStatus[said.Code()]
	if !known {
		code = http.StatusInternalServerError
	}
	problem := refusal(code, said.Message(), r.first(headerRequestID), r.first("retry-after"))
	if said.Code() == codes.DeadlineExceeded {
		// The deadline travels with the call: when the server notices first, it is still the caller's.
		problem.cause = context.DeadlineExceeded
	}
	return problem
}
