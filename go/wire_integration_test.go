package dwcpml_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	"ml.dwcp.io/dwcpml"
)

// named returns a server's address of the environment, without its scheme.
func named(t *testing.T, variable string) string {
	address := os.Getenv(variable)
	if address == "" {
		t.Skipf("SKIPPED: NOTHING WAS TESTED: name a running model server in %s", variable)
	}
	if _, rest, found := strings.Cut(address, "://"); found {
		return rest
	}
	return address
}

// predict returns the protocol and the predictions of one request.
func predict(client *http.Client, address string) (protocol, body string, err error) {
	instances := `{"instances": [[99.99, 0.01, 0.0005, 5, 0.2, 20], [60, 30, 0.3, 5000, 40, 900]]}`
	url := "http://" + address + "/v1/models/reliability_detector:predict"
	response, err := client.Post(url, "application/json", bytes.NewReader([]byte(instances)))
	if err != nil {
		return "", "", err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return response.Proto + " " + response.Status, string(content), err
}

// The same server on the same port gives net/http the same predictions over HTTP/1.1 and over HTTP/2
// without TLS, there many at once on one connection.
func TestUnencryptedHTTP2(t *testing.T) {
	address := named(t, httpVariable)
	clients := map[string]*http.Client{}
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		var protocols http.Protocols
		protocols.SetHTTP1(protocol == "HTTP/1.1")
		protocols.SetUnencryptedHTTP2(protocol == "HTTP/2.0")
		transport := &http.Transport{Protocols: &protocols}
		defer transport.CloseIdleConnections()
		clients[protocol] = &http.Client{Transport: transport, Timeout: 10 * time.Second}
	}
	status, expected, err := predict(clients["HTTP/1.1"], address)
	if err != nil || status != "HTTP/1.1 200 OK" || !strings.Contains(expected, "anomaly_score") {
		t.Fatal(status, expected, err)
	}
	var waiting sync.WaitGroup
	for range 100 {
		waiting.Add(1)
		go func() {
			defer waiting.Done()
			status, body, err := predict(clients["HTTP/2.0"], address)
			if err != nil || !strings.HasPrefix(status, "HTTP/2.0 200") || body != expected {
				t.Error(status, body, err)
			}
		}()
	}
	waiting.Wait()
}

// connect returns a connection to the server under test, and a context of ten seconds.
func connect(t *testing.T) (*grpc.ClientConn, context.Context) {
	address := named(t, grpcVariable)
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return connection, ctx
}

func TestStandardHealthService(t *testing.T) {
	connection, ctx := connect(t)
	health := grpc_health_v1.NewHealthClient(connection)
	for _, service := range []string{"", "inference.GRPCInferenceService"} {
		reply, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil || reply.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("service %q: %v, %v", service, reply, err)
		}
	}
	watch, err := health.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	first, err := watch.Recv()
	if err != nil || first.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("watched: %v, %v", first, err)
	}
}

// grpcio has the first version of the service only; clients such as grpcurl fall back to it.
func TestReflectionService(t *testing.T) {
	connection, ctx := connect(t)
	stream, err := grpc_reflection_v1alpha.NewServerReflectionClient(connection).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	request := &grpc_reflection_v1alpha.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1alpha.ServerReflectionRequest_ListServices{},
	}
	if err := stream.Send(request); err != nil {
		t.Fatal(err)
	}
	reply, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var services []string
	for _, service := range reply.GetListServicesResponse().GetService() {
		services = append(services, service.GetName())
	}
	for _, expected := range []string{"inference.GRPCInferenceService", "grpc.health.v1.Health"} {
		if !slices.Contains(services, expected) {
			t.Errorf("%s is not among %v", expected, services)
		}
	}
}

// What came true is reported with the version that the response named, and the server counts it once.
func TestOutcomesAreCounted(t *testing.T) {
	address := named(t, httpVariable)
	for _, target := range []string{"http://" + address, "grpc://" + named(t, grpcVariable)} {
		client, err := dwcpml.NewModelInferenceClient(target)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		id := "outcome-" + rand.Text()
		ctx := dwcpml.WithRequestID(context.Background(), id)
		bandwidth, err := client.PredictBandwidth(ctx, []float64{10.5, 2.3, 150.0, 0.01, 1, 2, 65536})
		if err != nil {
			t.Fatal(err)
		}
		before := counted(t, address)
		var reporter dwcpml.OutcomeReporter = client
		if err := reporter.ReportOutcome(context.Background(), id, max(bandwidth, 1)); err != nil {
			t.Fatal(err)
		}
		if after := counted(t, address); after != before+1 {
			t.Errorf("%s: %d are counted, and %d before", target, after, before)
		}
	}
}

// counted returns how many outcomes of the bandwidth predictor the server counts.
func counted(t *testing.T, address string) (count int) {
	response, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(page), "\n") {
		if rest, found := strings.CutPrefix(line, `dwcp_reported_loss_count{model="bandwidth_predictor"`); found {
			_, value, _ := strings.Cut(rest, "} ")
			number, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			count += int(number)
		}
	}
	return count
}
