package dwcpml_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
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
