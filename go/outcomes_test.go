package dwcpml

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"ml.dwcp.io/dwcpml/internal/feedback"
)

func versioned(body string) scriptedReply {
	reply := ok(body)
	reply.headers = map[string]string{headerVersion: "v7"}
	return reply
}

func named1(id string) context.Context { return WithRequestID(context.Background(), id) }

const counted = `{"counted":1,"duplicates":0,"undefined":0}`

func TestAnOutcomeIsReportedWithItsPredictionAndVersion(t *testing.T) {
	for model, c := range map[string]struct {
		answer string
		call   func(*ModelInferenceClient, context.Context) error
		given  float64
		want   string
	}{
		BandwidthPredictor: {
			bandwidthAnswer,
			func(c *ModelInferenceClient, ctx context.Context) error {
				_, err := c.PredictBandwidth(ctx, observation(1))
				return err
			},
			118.5, `{"outcomes":[{"id":"r-1","outcome":118.5,"prediction":123.4,"version":"v7"}]}`,
		},
		CompressionSelector: {
			`{"predictions":[{"compression_level":3,"probabilities":[0,0,0,1,0,0,0,0,0,0]}]}`,
			func(c *ModelInferenceClient, ctx context.Context) error {
				_, err := c.SelectCompression(ctx, make([]float64, 6))
				return err
			},
			4, `{"outcomes":[{"id":"r-1","outcome":4,"prediction":3,"version":"v7"}]}`,
		},
		ReliabilityDetector: {
			`{"predictions":[{"is_anomaly":true,"anomaly_score":0.625}]}`,
			func(c *ModelInferenceClient, ctx context.Context) error {
				_, _, err := c.DetectAnomaly(ctx, make([]float64, 6))
				return err
			},
			0, `{"outcomes":[{"id":"r-1","outcome":false,"prediction":true,"version":"v7"}]}`,
		},
		ConsensusLatency: {
			`{"predictions":[{"reconstruction_error":0.25,"is_high_latency":true}]}`,
			func(c *ModelInferenceClient, ctx context.Context) error {
				_, err := c.DetectHighLatency(ctx, make([]float64, 20))
				return err
			},
			1, `{"outcomes":[{"id":"r-1","outcome":true,"prediction":true,"version":"v7"}]}`,
		},
	} {
		server := newScriptedHTTP(t, versioned(c.answer), ok(counted))
		client := dial(t, server.URL)
		if err := c.call(client, named1("r-1")); err != nil {
			t.Fatal(err)
		}
		if err := client.ReportOutcome(context.Background(), "r-1", c.given); err != nil {
			t.Fatal(err)
		}
		seen := server.seen()[1]
		if seen.method != http.MethodPost || seen.path != "/v1/models/"+model+":feedback" || seen.body != c.want {
			t.Errorf("%s %s %s, want %s", seen.method, seen.path, seen.body, c.want)
		}
		wantError(t, client.ReportOutcome(context.Background(), "r-1", c.given), ErrInvalidInput, "r-1")
	}
}

func TestOutcomesThatCanNotBeReported(t *testing.T) {
	server := newScriptedHTTP(t, versioned(bandwidthAnswer))
	client := dial(t, server.URL)
	ctx := context.Background()
	wantError(t, client.ReportOutcome(ctx, "unknown", 1), ErrInvalidInput, "unknown")
	if _, err := client.PredictBandwidth(named1("r-1"), observation(1)); err != nil {
		t.Fatal(err)
	}
	wantError(t, client.ReportOutcome(ctx, "r-1", nan), ErrInvalidInput, "next_throughput_mbps")
	for _, value := range []float64{0.5, 2} {
		if _, valid := typed(true, value); valid {
			t.Errorf("%v is no flag", value)
		}
	}
	if _, valid := typed(int64(3), 2.5); valid {
		t.Error("2.5 is no level")
	}
	if len(server.seen()) != 1 {
		t.Error("nothing of it may be sent")
	}
}

func TestWhatIsNotRememberedForOutcomes(t *testing.T) {
	server := newScriptedHTTP(t, ok(bandwidthAnswer), versioned(bandwidthAnswer),
		versioned(`{"predictions":[{"next_throughput_mbps":1},{"next_throughput_mbps":2}]}`))
	client := dial(t, server.URL)
	if _, err := client.PredictBandwidth(named1("no-version"), observation(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.PredictBandwidth(context.Background(), observation(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Infer(named1("two"), BandwidthPredictor, [][]float64{make([]float64, 70), make([]float64, 70)}); err != nil {
		t.Fatal(err)
	}
	if kept := client.remote.made.order.Len(); kept != 0 {
		t.Errorf("%d are kept", kept)
	}
}

func TestAFailedReportCanBeRepeated(t *testing.T) {
	server := newScriptedHTTP(t, versioned(bandwidthAnswer), failing(500, "broken"), ok(counted))
	client := dial(t, server.URL)
	if _, err := client.PredictBandwidth(named1("r-1"), observation(1)); err != nil {
		t.Fatal(err)
	}
	if client.ReportOutcome(context.Background(), "r-1", 1) == nil {
		t.Fatal("the server failed")
	}
	if err := client.ReportOutcome(context.Background(), "r-1", 1); err != nil {
		t.Error(err)
	}
}

func TestTheMemoryOfPredictionsIsBounded(t *testing.T) {
	spec, _ := specOf(BandwidthPredictor)
	now := time.Unix(0, 0)
	memory := newMemory(3, time.Minute)
	memory.now = func() time.Time { return now }
	put := func(id string) {
		call := &modelCall{callLabels: callLabels{requestID: id}, spec: spec, version: "v7"}
		memory.put(call, Prediction{"next_throughput_mbps": float32(1)})
	}
	for at := range 5 {
		put(fmt.Sprint(at))
	}
	put("4") // again
	if memory.order.Len() != 3 || len(memory.byID) != 3 {
		t.Errorf("%d are kept", memory.order.Len())
	}
	for id, want := range map[string]bool{"1": false, "2": true, "4": true} {
		if _, found := memory.get(id); found != want {
			t.Errorf("%s: %v", id, found)
		}
	}
	now = now.Add(2 * time.Minute)
	if _, found := memory.get("4"); found {
		t.Error("it was too long ago")
	}
	put("new")
	if memory.order.Len() != 1 {
		t.Errorf("%d are kept", memory.order.Len())
	}
}

func TestAnOutcomeIsReportedOverGRPC(t *testing.T) {
	answer := proto.Clone(bandwidthTensors).(*inferResponse)
	answer.ModelVersion = "v7"
	server := newScriptedGRPC(t, replyWith(answer))
	server.refusal = status.Error(codes.InvalidArgument, "Outcome 0 is wrong.")
	client := dial(t, server.address)
	if _, err := client.PredictBandwidth(named1("r-1"), observation(1)); err != nil {
		t.Fatal(err)
	}
	wantError(t, client.ReportOutcome(context.Background(), "r-1", 118.5), ErrInvalidInput, "Outcome 0")
	if err := client.ReportOutcome(context.Background(), "r-1", 118.5); err != nil {
		t.Fatal(err)
	}
	wantError(t, client.ReportOutcome(context.Background(), "r-1", 118.5), ErrInvalidInput, "r-1")
	prediction, outcome := float64(float32(123.4)), 118.5
	want := &feedback.ReportOutcomesRequest{
		ModelName: BandwidthPredictor,
		Outcomes: []*feedback.Outcome{
			{Id: "r-1", Version: "v7", Prediction: &prediction, Outcome: &outcome},
		},
	}
	if len(server.reports) != 2 || !proto.Equal(server.reports[1], want) {
		t.Errorf("%v, want %v", server.reports, want)
	}
}

func TestAServerOfGRPCWithoutReportsSaysSo(t *testing.T) {
	server := newScriptedGRPC(t)
	server.refusal = status.Error(codes.Unimplemented, "unknown service dwcp.ml.v1.Feedback")
	transport := dial(t, server.address).remote.transport
	spec, _ := specOf(BandwidthPredictor)
	problem := transport.report(context.Background(), &modelCall{spec: spec}, &outcomeReport{Outcome: true, Prediction: int64(3)})
	if problem == nil || problem.Code != http.StatusNotImplemented {
		t.Errorf("%v", problem)
	}
	sent := server.reports[0].GetOutcomes()[0]
	if sent.GetPrediction() != 3 || sent.GetOutcome() != 1 {
		t.Errorf("%v", sent)
	}
}
