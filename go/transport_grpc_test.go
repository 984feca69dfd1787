package dwcpml

import (
	"context"
	"encoding/binary"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"ml.dwcp.io/dwcpml/internal/inference"
)

type (
	inferRequest  = inference.ModelInferRequest
	inferResponse = inference.ModelInferResponse
	inferOutput   = inference.ModelInferResponse_InferOutputTensor
	contents      = inference.InferTensorContents
)

func rawFloats(values ...float32) []byte {
	var raw []byte
	for _, value := range values {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(value))
	}
	return raw
}

func replyWith(prediction *inferResponse) grpcReply {
	return func(*inferRequest) (*inferResponse, error) { return prediction, nil }
}

func failWith(code codes.Code, message string) grpcReply {
	return func(*inferRequest) (*inferResponse, error) { return nil, status.Error(code, message) }
}

var bandwidthTensors = &inferResponse{
	Outputs:           []*inferOutput{{Name: "next_throughput_mbps", Datatype: "FP32", Shape: []int64{1}}},
	RawOutputContents: [][]byte{rawFloats(123.4)},
}

func TestTheFourCallsOverGRPC(t *testing.T) {
	server := newScriptedGRPC(t,
		replyWith(bandwidthTensors),
		replyWith(&inferResponse{
			Outputs: []*inferOutput{
				{Name: "probabilities", Datatype: "FP32", Shape: []int64{1, 10}},
				{Name: "compression_level", Datatype: "INT64", Shape: []int64{1, 1}},
			},
			RawOutputContents: [][]byte{
				rawFloats(0, 0, 0, 1, 0, 0, 0, 0, 0, 0), binary.LittleEndian.AppendUint64(nil, 3),
			},
		}),
		replyWith(&inferResponse{
			Outputs: []*inferOutput{
				{Name: "anomaly_score", Datatype: "FP32", Shape: []int64{1}, Contents: &contents{Fp32Contents: []float32{0.625}}},
				{Name: "is_anomaly", Datatype: "BOOL", Shape: []int64{1}, Contents: &contents{BoolContents: []bool{true}}},
			},
		}),
		replyWith(&inferResponse{
			Outputs: []*inferOutput{
				{Name: "is_high_latency", Datatype: "BOOL", Shape: []int64{1}},
				{Name: "reconstruction_error", Datatype: "FP32", Shape: []int64{1}},
			},
			RawOutputContents: [][]byte{{1}, rawFloats(0.25)},
		}),
	)
	client := dial(t, server.address, WithTimeout(time.Minute), WithModelVersion(ConsensusLatency, "7"))
	ctx := WithLink(WithRequestID(context.Background(), "r-1"), "n1/n2")
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
	request := server.requests[0]
	input := request.GetInputs()[0]
	if request.GetModelName() != BandwidthPredictor || request.GetId() != "r-1" || input.GetName() != "features" ||
		input.GetDatatype() != "FP32" || !slices.Equal(input.GetShape(), []int64{1, 10, 7}) {
		t.Errorf("the request was %v", request)
	}
	if got, want := request.GetRawInputContents()[0][:28], rawFloats(10.5, 2.3, 150, 0.01, 1, 2, 65536); !slices.Equal(got, want) {
		t.Errorf("the first row was %v, want %v", got, want)
	}
	if received := server.metadata[0]; received.Get("x-request-id")[0] != "r-1" || received.Get("x-dwcp-link")[0] != "n1/n2" {
		t.Errorf("the metadata was %v", received)
	}
	if last := server.requests[3]; last.GetModelVersion() != "7" || !slices.Equal(last.GetInputs()[0].GetShape(), []int64{1, 20}) {
		t.Errorf("the last request was %v", last)
	}
}

func TestSeveralInstancesInOneRequest(t *testing.T) {
	server := newScriptedGRPC(t, replyWith(&inferResponse{
		Outputs: []*inferOutput{
			{Name: "anomaly_score", Datatype: "FP32", Shape: []int64{2}},
			{Name: "is_anomaly", Datatype: "BOOL", Shape: []int64{2}},
		},
		RawOutputContents: [][]byte{rawFloats(0.1, 0.9), {0, 1}},
	}))
	got, err := dial(t, server.address).Infer(context.Background(), ReliabilityDetector, [][]float64{make([]float64, 6), make([]float64, 6)})
	want := []Prediction{
		{"anomaly_score": float32(0.1), "is_anomaly": false}, {"anomaly_score": float32(0.9), "is_anomaly": true},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %v, %v; want %v", got, err, want)
	}
}

func TestAStatusOfGRPCIsTheSameErrorAsOverHTTP(t *testing.T) {
	for code, want := range map[codes.Code]struct {
		kind   error
		status int
		sent   int
	}{
		codes.InvalidArgument:   {ErrInvalidInput, 400, 1},
		codes.NotFound:          {ErrModelNotFound, 404, 1},
		codes.ResourceExhausted: {ErrTooLarge, 413, 1},
		codes.Unavailable:       {ErrNotReady, 503, 3},
		codes.Canceled:          {ErrNotReady, 503, 3},
		codes.Internal:          {ErrUnavailable, 500, 1},
		codes.DeadlineExceeded:  {ErrTimeout, 504, 1},
		codes.PermissionDenied:  {ErrBadResponse, 403, 1},
	} {
		server := newScriptedGRPC(t, failWith(code, "the third feature is odd"))
		_, err := dial(t, server.address, WithTimeout(time.Minute)).
			PredictBandwidth(WithRequestID(context.Background(), "r-9"), observation(1))
		problem := wantError(t, err, want.kind, "the third feature is odd", "r-9")
		if problem.Code != want.status || len(server.requests) != want.sent {
			t.Errorf("%s: got %+v after %d requests", code, problem, len(server.requests))
		}
	}
}

func TestAServerOfGRPCThatIsNotReadyIsCalledAgain(t *testing.T) {
	server := newScriptedGRPC(t, failWith(codes.Unavailable, "draining"), replyWith(bandwidthTensors))
	if _, err := dial(t, server.address).PredictBandwidth(context.Background(), observation(1)); err != nil {
		t.Fatal(err)
	}
	if len(server.requests) != 2 {
		t.Fatalf("%d requests were sent, want 2", len(server.requests))
	}
}

func TestMetadataSaysHowLongToWait(t *testing.T) {
	seen := received{trailer: metadata.Pairs("retry-after", "7", "x-request-id", "r-1")}
	problem := seen.problem(status.Error(codes.Unavailable, "draining"))
	if !problem.retry || problem.retryAfter != 7*time.Second || problem.RequestID != "r-1" {
		t.Fatalf("got %+v", problem)
	}
}

func TestADeadlineThatTheServerEnforcesIsTheCallers(t *testing.T) {
	var seen received
	problem := seen.problem(status.Error(codes.DeadlineExceeded, "stream terminated"))
	wantError(t, problem, ErrTimeout)
	wantError(t, problem, context.DeadlineExceeded)
}

func TestTheDeadlineEndsACallOverGRPC(t *testing.T) {
	release := make(chan struct{})
	server := newScriptedGRPC(t, func(*inferRequest) (*inferResponse, error) {
		<-release
		return bandwidthTensors, nil
	})
	defer close(release)
	_, err := dial(t, server.address, WithTimeout(50*time.Millisecond)).PredictBandwidth(context.Background(), observation(1))
	wantError(t, err, ErrTimeout)
	wantError(t, err, context.DeadlineExceeded)
}

func TestReadyOverGRPC(t *testing.T) {
	server := newScriptedGRPC(t, replyWith(bandwidthTensors))
	client := dial(t, server.address)
	if err := client.Ready(context.Background(), BandwidthPredictor); err != nil {
		t.Fatal(err)
	}
	server.notReady = true
	wantError(t, client.Ready(context.Background(), BandwidthPredictor), ErrNotReady)
}

func TestTensorsThatBreakTheContractAreBadResponses(t *testing.T) {
	float := func(datatype string, raw []byte, shape ...int64) *inferResponse {
		return &inferResponse{
			Outputs:           []*inferOutput{{Name: "next_throughput_mbps", Datatype: datatype, Shape: shape}},
			RawOutputContents: [][]byte{raw},
		}
	}
	for name, prediction := range map[string]*inferResponse{
		"nothing":          {},
		"another output":   {Outputs: []*inferOutput{{Name: "y", Datatype: "FP32", Shape: []int64{1}}}},
		"another dtype":    float("FP64", make([]byte, 8), 1),
		"text":             float("BYTES", []byte{1, 0, 0, 0, 'a'}, 1),
		"too few":          float("FP32", nil, 1),
		"too many":         float("FP32", rawFloats(1, 2), 1),
		"half a number":    float("FP32", make([]byte, 6), 1),
		"not a number":     float("FP32", rawFloats(float32(nan)), 1),
		"another batch":    float("FP32", rawFloats(1, 2), 2),
		"no shape":         float("FP32", rawFloats(1)),
		"a negative shape": float("FP32", rawFloats(1), -1, -1),
		"an endless shape": float("FP32", rawFloats(1), 1, math.MaxInt64, math.MaxInt64),
		"raw of another": {
			Outputs:           []*inferOutput{{Name: "next_throughput_mbps", Datatype: "FP32", Shape: []int64{1}}},
			RawOutputContents: [][]byte{rawFloats(1), rawFloats(1)},
		},
		"contents of two dtypes": {
			Outputs: []*inferOutput{{
				Name: "next_throughput_mbps", Datatype: "FP32", Shape: []int64{1},
				Contents: &contents{Fp32Contents: []float32{1}, BoolContents: []bool{true}},
			}},
		},
		"classes for instances": {
			Outputs: []*inferOutput{
				{Name: "bandwidth_class", Datatype: "INT64", Shape: []int64{1}, Contents: &contents{Int64Contents: []int64{2}}},
				{Name: "probabilities", Datatype: "FP32", Shape: []int64{3, 1}, Contents: &contents{Fp32Contents: []float32{0, 0, 1}}},
			},
		},
		"a class out of range": {
			Outputs: []*inferOutput{
				{Name: "bandwidth_class", Datatype: "INT64", Shape: []int64{1}, Contents: &contents{Int64Contents: []int64{3}}},
				{Name: "probabilities", Datatype: "FP32", Shape: []int64{1, 3}, Contents: &contents{Fp32Contents: []float32{0, 0, 1}}},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			spec, _ := specOf(BandwidthPredictor)
			predictions, problem := decodeTensors(spec, prediction, 1)
			if problem == nil {
				t.Fatalf("it was read as %v", predictions)
			}
			wantError(t, problem, ErrBadResponse)
		})
	}
}

func FuzzDecodeTensors(f *testing.F) {
	seed, err := proto.Marshal(bandwidthTensors)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(BandwidthPredictor, seed, 1)
	f.Add(ReliabilityDetector, seed, 1)
	f.Add(BandwidthPredictor, seed[:len(seed)-2], 2)
	f.Fuzz(func(t *testing.T, model string, message []byte, count int) {
		spec, err := specOf(model)
		response := &inferResponse{}
		if err != nil || count < 0 || count > 100 || proto.Unmarshal(message, response) != nil {
			t.Skip("no such model, too many instances, or no message")
		}
		predictions, problem := decodeTensors(spec, response, count)
		if problem == nil && len(predictions) != count {
			t.Fatalf("%d predictions for %d instances", len(predictions), count)
		}
	})
}
