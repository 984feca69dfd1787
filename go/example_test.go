package dwcpml_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"ml.dwcp.io/dwcpml"
)

// startServer responds like a model server, so that the examples run.
func startServer() *httptest.Server {
	predictions := map[string]string{
		dwcpml.BandwidthPredictor:  `{"next_throughput_mbps": 142.5}`,
		dwcpml.CompressionSelector: `{"compression_level": 3, "probabilities": [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]}`,
		dwcpml.ReliabilityDetector: `{"is_anomaly": true, "anomaly_score": 0.75}`,
		dwcpml.ConsensusLatency:    `{"is_high_latency": false, "reconstruction_error": 0.125}`,
	}
	return httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		model, _, _ := strings.Cut(strings.TrimPrefix(request.URL.Path, "/v1/models/"), ":")
		if strings.Contains(string(body), "-1") {
			writer.Header().Set("X-Request-Id", request.Header.Get("X-Request-Id"))
			writer.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(writer, `{"error": "rtt_ms must be above 0"}`)
			return
		}
		fmt.Fprintf(writer, `{"predictions": [%s]}`, predictions[model])
	}))
}

func Example() {
	server := startServer() // stands for "models:8501"
	defer server.Close()

	client, err := dwcpml.NewModelInferenceClient(server.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ctx := context.Background()

	bandwidth, err := client.PredictBandwidth(ctx, []float64{10.5, 2.3, 150.0, 0.01, 1, 2, 65536})
	if err != nil {
		log.Fatal(err)
	}
	level, err := client.SelectCompression(ctx, []float64{150, 10.5, 1, 2.4, 0.6, 90})
	if err != nil {
		log.Fatal(err)
	}
	failing, score, err := client.DetectAnomaly(ctx, []float64{99.2, 1.5, 0.02, 40, 3.1, 85})
	if err != nil {
		log.Fatal(err)
	}
	high, err := client.DetectHighLatency(ctx, make([]float64, 20))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(bandwidth, level, failing, score, high)
	// Output: 142.5 3 true 0.75 false
}

func ExampleWithLink() {
	server := startServer()
	defer server.Close()
	client, err := dwcpml.NewModelInferenceClient(server.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	observed := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ctx := dwcpml.WithLink(context.Background(), "node-1/node-2")
	ctx = dwcpml.WithObservedAt(ctx, observed)
	bandwidth, err := client.PredictBandwidth(ctx, []float64{10.5, 2.3, 150.0, 0.01, 1, 2, 65536})
	fmt.Println(bandwidth, err)
	// Output: 142.5 <nil>
}

func ExampleError() {
	server := startServer()
	defer server.Close()
	client, err := dwcpml.NewModelInferenceClient(server.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	ctx := dwcpml.WithRequestID(context.Background(), "req-17")
	_, err = client.SelectCompression(ctx, []float64{150, -1, 1, 2.4, 0.6, 90})

	var problem *dwcpml.Error
	switch {
	case errors.Is(err, dwcpml.ErrNotReady), errors.Is(err, dwcpml.ErrUnavailable), errors.Is(err, dwcpml.ErrTimeout):
		fmt.Println("use the last level")
	case errors.As(err, &problem):
		fmt.Println(problem.Code, problem.RequestID, problem.Message)
	}
	fmt.Println(errors.Is(err, dwcpml.ErrInvalidInput))
	// Output:
	// 400 req-17 rtt_ms must be above 0
	// true
}

func ExampleNewModelInferenceClientWithOptions() {
	client, err := dwcpml.NewModelInferenceClientWithOptions("grpc://models:8502",
		dwcpml.WithTimeout(200*time.Millisecond),
		dwcpml.WithAttempts(2),
		dwcpml.WithMaxLinks(50_000),
	)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(client.Close())
	// Output: <nil>
}

func ExampleModelInferenceClient_Infer() {
	server := startServer()
	defer server.Close()
	client, err := dwcpml.NewModelInferenceClient(server.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	rows := [][]float64{{99.2, 1.5, 0.02, 40, 3.1, 85}}
	predictions, err := client.Infer(context.Background(), dwcpml.ReliabilityDetector, rows)
	if err != nil {
		log.Fatal(err)
	}
	score, _ := predictions[0].Float("anomaly_score")
	fmt.Println(len(predictions), score)
	// Output: 1 0.75
}

func ExampleNewLocalModels() {
	var models dwcpml.Models
	models, err := dwcpml.NewLocalModels("/mnt/models", dwcpml.WithLibrary("/opt/onnxruntime/libonnxruntime.so"))
	if errors.Is(err, dwcpml.ErrModelNotFound) || errors.Is(err, errors.ErrUnsupported) {
		fmt.Println("call the server instead")
		return
	}
	if err != nil {
		log.Fatal(err)
	}
	defer models.Close()
	// Output: call the server instead
}
