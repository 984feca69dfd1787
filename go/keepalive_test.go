package dwcpml

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// silentProxy forwards connections to a server. Those that are open when silence is called stay open and
// carry no byte any more, in either direction; new ones work.
type silentProxy struct {
	address string
	mutex   sync.Mutex
	silent  []chan struct{}
	opened  int
}

func newSilentProxy(t *testing.T, target string) *silentProxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	proxy := &silentProxy{address: listener.Addr().String()}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				_ = client.Close()
				continue
			}
			silent := make(chan struct{})
			proxy.mutex.Lock()
			proxy.silent = append(proxy.silent, silent)
			proxy.opened++
			proxy.mutex.Unlock()
			go forward(client, server, silent)
			go forward(server, client, silent)
		}
	}()
	return proxy
}

func forward(from, to net.Conn, silent chan struct{}) {
	block := make([]byte, 32<<10)
	for {
		count, err := from.Read(block)
		select {
		case <-silent: // read on, so that TCP acknowledges every byte
			if err != nil {
				return
			}
			continue
		default:
		}
		if err == nil {
			_, err = to.Write(block[:count])
		}
		if err != nil {
			_, _ = from.Close(), to.Close()
			return
		}
	}
}

func (p *silentProxy) silence() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, silent := range p.silent {
		close(silent)
	}
	p.silent = nil
}

func (p *silentProxy) connections() int {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.opened
}

func TestCallsRecoverFromASilentConnection(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for keep-alive pings")
	}
	answer := http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		_, _ = io.Copy(io.Discard, request.Body)
		writer.Header().Set("X-Protocol", request.Proto)
		_, _ = io.WriteString(writer, bandwidthAnswer)
	})
	plain := httptest.NewServer(answer)
	t.Cleanup(plain.Close)
	multiplexed := httptest.NewUnstartedServer(answer)
	multiplexed.EnableHTTP2 = true
	multiplexed.StartTLS()
	t.Cleanup(multiplexed.Close)
	fake := newScriptedGRPC(t, replyWith(bandwidthTensors))
	trusted := WithTLSConfig(&tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a test's own server
	for _, each := range []struct {
		name, scheme, target string
		within               time.Duration
		options              []Option
	}{
		{"HTTP1", "http://", plain.Listener.Addr().String(), 2 * time.Second, nil},
		{"HTTP2", "https://", multiplexed.Listener.Addr().String(), 7 * time.Second, []Option{trusted}},
		{"GRPC", "grpc://", strings.TrimPrefix(fake.address, "grpc://"), 15 * time.Second, nil},
	} {
		for _, idle := range []bool{false, true} {
			name := each.name + "/busy"
			if idle {
				name = each.name + "/idle"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				proxy := newSilentProxy(t, each.target)
				options := append([]Option{WithTimeout(300 * time.Millisecond)}, each.options...)
				client := dial(t, each.scheme+proxy.address, options...)
				ctx := context.Background()
				if _, err := client.PredictBandwidth(ctx, observation(1)); err != nil {
					t.Fatal(err)
				}
				proxy.silence()
				start := time.Now()
				if idle {
					time.Sleep(each.within)
				}
				for {
					_, err := client.PredictBandwidth(ctx, observation(1))
					if err == nil {
						break
					}
					if time.Since(start) > each.within+3*time.Second {
						t.Fatalf("no recovery after %s: %s", time.Since(start), err)
					}
				}
				t.Logf("recovered after %s", time.Since(start))
				if proxy.connections() != 2 {
					t.Errorf("%d connections were opened, want 2", proxy.connections())
				}
			})
		}
	}
}

// A call with a long deadline is sent again over a new connection instead of waiting for its end.
func TestALongCallIsSentAgainAfterASilentConnection(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for keep-alive pings")
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(
		func(writer http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(writer, bandwidthAnswer) }))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	fake := newScriptedGRPC(t, replyWith(bandwidthTensors))
	trusted := WithTLSConfig(&tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a test's own server
	for scheme, target := range map[string]string{
		"https://": server.Listener.Addr().String(), "grpc://": strings.TrimPrefix(fake.address, "grpc://"),
	} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			proxy := newSilentProxy(t, target)
			client := dial(t, scheme+proxy.address, WithTimeout(time.Minute), trusted)
			for range 2 {
				start := time.Now()
				_, err := client.PredictBandwidth(context.Background(), observation(1))
				if err != nil || time.Since(start) > 15*time.Second {
					t.Fatalf("after %s: %v", time.Since(start), err)
				}
				proxy.silence()
			}
		})
	}
}
