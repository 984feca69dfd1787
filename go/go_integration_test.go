package dwcpml_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"ml.dwcp.io/dwcpml"
)

// The servers under test: addresses, with or without a scheme.
const (
	httpVariable = "DWCP_MODELS_HTTP"
	grpcVariable = "DWCP_MODELS_GRPC"
)

// onEach runs a test over each protocol whose server the environment names.
func onEach(t *testing.T, test func(t *testing.T, client *dwcpml.ModelInferenceClient)) {
	for _, each := range []struct {
		name, variable string
		protocol       dwcpml.Protocol
	}{
		{"HTTP", httpVariable, dwcpml.HTTP},
		{"gRPC", grpcVariable, dwcpml.GRPC},
	} {
		t.Run(each.name, func(t *testing.T) {
			address := os.Getenv(each.variable)
			if address == "" {
				t.Skipf("SKIPPED: NOTHING WAS TESTED over %s: name a running model server in %s", each.name, each.variable)
			}
			client, err := dwcpml.NewModelInferenceClientWithOptions(address,
				dwcpml.WithProtocol(each.protocol), dwcpml.WithTimeout(10*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			test(t, client)
		})
	}
}

func TestBandwidthPredictorCompatibility(t *testing.T) {
	onEach(t, func(t *testing.T, client *dwcpml.ModelInferenceClient) {
		features := []float64{10.5, 2.3, 150.0, 0.01, 1, 2, 65536}
		ctx := dwcpml.WithLink(context.Background(), "node-1/node-2")
		bandwidth, err := client.PredictBandwidth(ctx, features)
		if err != nil {
			t.Fatal(err)
		}
		if bandwidth < 0 || bandwidth > 1000 {
			t.Errorf("the bandwidth %v is not within 0 and 1000 Mbit/s", bandwidth)
		}
		window := slices.Repeat(features, 10)
		whole, err := client.PredictBandwidth(ctx, window)
		if err != nil {
			t.Fatal(err)
		}
		if whole != bandwidth {
			t.Errorf("a first observation gives %v, the window of ten of it %v", bandwidth, whole)
		}
	})
}

func TestCompressionSelectorCompatibility(t *testing.T) {
	onEach(t, func(t *testing.T, client *dwcpml.ModelInferenceClient) {
		features := []float64{150, 40, 2, 2.5, 0.4, 120}
		level, err := client.SelectCompression(context.Background(), features)
		if err != nil {
			t.Fatal(err)
		}
		if level < 0 || level > 9 {
			t.Errorf("the level %d is not within 0 and 9", level)
		}
		predictions, err := client.Infer(context.Background(), dwcpml.CompressionSelector, [][]float64{features})
		if err != nil {
			t.Fatal(err)
		}
		probabilities, _ := predictions[0].Floats("probabilities")
		if best := slices.Index(probabilities, slices.Max(probabilities)); best != level {
			t.Errorf("the level is %d, the most probable one %d", level, best)
		}
	})
}

func TestReliabilityDetectorCompatibility(t *testing.T) {
	onEach(t, func(t *testing.T, client *dwcpml.ModelInferenceClient) {
		healthy := []float64{99.99, 0.01, 0.0005, 5, 0.2, 20}
		failing := []float64{60, 30, 0.3, 5000, 40, 900}
		_, low, err := client.DetectAnomaly(context.Background(), healthy)
		if err != nil {
			t.Fatal(err)
		}
		anomalous, high, err := client.DetectAnomaly(context.Background(), failing)
		if err != nil {
			t.Fatal(err)
		}
		if low < 0 || high > 1 || low >= high || !anomalous {
			t.Errorf("the scores are %v and %v, and the failing node is anomalous: %v", low, high, anomalous)
		}
	})
}

func TestConsensusLatencyCompatibility(t *testing.T) {
	onEach(t, func(t *testing.T, client *dwcpml.ModelInferenceClient) {
		if _, err := client.DetectHighLatency(context.Background(), slices.Repeat([]float64{25}, 20)); err != nil {
			t.Fatal(err)
		}
		high, err := client.DetectHighLatency(context.Background(), slices.Repeat([]float64{20, 60_000}, 10))
		if err != nil {
			t.Fatal(err)
		}
		if !high {
			t.Error("a latency that jumps to a minute is not high")
		}
	})
}

func TestBothProtocolsGiveTheSamePredictions(t *testing.T) {
	if os.Getenv(httpVariable) == "" || os.Getenv(grpcVariable) == "" {
		t.Skipf("SKIPPED: NOTHING WAS COMPARED: name a running model server in %s and in %s", httpVariable, grpcVariable)
	}
	predictions := map[string]float64{}
	onEach(t, func(t *testing.T, client *dwcpml.ModelInferenceClient) {
		_, score, err := client.DetectAnomaly(context.Background(), []float64{99.1, 0.3, 0.02, 40, 1.5, 80})
		if err != nil {
			t.Fatal(err)
		}
		predictions[t.Name()[strings.LastIndex(t.Name(), "/")+1:]] = score
	})
	if predictions["HTTP"] != predictions["gRPC"] {
		t.Errorf("the same row has two scores: %v", predictions)
	}
}
