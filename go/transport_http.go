package dwcpml

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

const (
	responseBytesBase        = 1 << 20
	responseBytesPerInstance = 4 << 10
)

// httpTransport implements the V1 protocol of KServe and TensorFlow Serving.
type httpTransport struct {
	base     string
	versions map[string]string
	client   *http.Client
	pool     *http.Transport
}

func newHTTPTransport(target *url.URL, config *settings) *httpTransport {
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	pool := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSClientConfig:     config.tls,
		TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConns:        config.maxIdle,
		MaxIdleConnsPerHost: config.maxIdle,
		IdleConnTimeout:     60 * time.Second,
		DisableCompression:  true,
		ForceAttemptHTTP2:   target.Scheme == "https",
		HTTP2:               &http.HTTP2Config{SendPingTimeout: http2PingAfter, PingTimeout: pingTimeout},
	}
	return &httpTransport{
		base:     strings.TrimRight(target.String(), "/"),
		versions: config.versions,
		pool:     pool,
		client: &http.Client{
			Transport: pool,
			// A redirected POST would lose its body, and inference servers do not redirect.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

func (t *httpTransport) url(model string) string {
	path := t.base + "/v1/models/" + model
	if version := t.versions[model]; version != "" {
		path += "/versions/" + url.PathEscape(version)
	}
	return path
}

func (t *httpTransport) infer(ctx context.Context, call *modelCall) ([]Prediction, *Error) {
	body := encodeInstances(call.spec.Input.Shape, call.instances)
	reply, problem := t.send(ctx, http.MethodPost, t.url(call.spec.Name)+":predict", body, call)
	if problem != nil {
		return nil, problem
	}
	call.version = reply.version
	predictions, problem := decodePredictions(call.spec, reply.body, len(call.instances))
	if problem != nil {
		problem.Code, problem.RequestID = reply.status, reply.requestID
	}
	return predictions, problem
}

func (t *httpTransport) ready(ctx context.Context, call *modelCall) *Error {
	reply, problem := t.send(ctx, http.MethodGet, t.url(call.spec.Name), nil, call)
	if problem != nil {
		return problem
	}
	if problem = decodeReady(reply.body); problem != nil {
		problem.Code, problem.RequestID = reply.status, reply.requestID
	}
	return problem
}

// report goes to the model without a version: any version counts for every other.
func (t *httpTransport) report(ctx context.Context, call *modelCall, report *outcomeReport) *Error {
	body, err := json.Marshal(map[string]any{"outcomes": []*outcomeReport{report}})
	if err != nil {
		return invalid(call.spec.Name, "the report can't be written: %s", err)
	}
	_, problem := t.send(ctx, http.MethodPost, t.base+"/v1/models/"+call.spec.Name+":feedback", body, call)
	return problem
}

type httpReply struct {
	status    int
	requestID string
	version   string
	body      []byte
}

// send returns a response with status 200 and its whole body.
func (t *httpTransport) send(
	ctx context.Context, method, address string, body []byte, call *modelCall,
) (*httpReply, *Error) {
	request, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, invalid("", "the request can't be made: %s", reason(err))
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	request.Header.Set("Accept", "application/json")
	// It is empty and therefore not sent: it allows the pool to resend over another connection if an
	// idle one is dead. After a restart of the server all idle connections are dead, and there may
	// be more of them than attempts.
	request.Header["Idempotency-Key"] = nil
	call.headers(request.Header.Set)
	response, err := t.client.Do(request)
	if err != nil {
		return nil, unreachable(reason(err), isTransient(err))
	}
	defer response.Body.Close()
	reply := &httpReply{
		status:    response.StatusCode,
		requestID: response.Header.Get(headerRequestID),
		version:   response.Header.Get(headerVersion),
	}
	limit := responseBytesBase + responseBytesPerInstance*int64(len(call.instances))
	reply.body, err = io.ReadAll(io.LimitReader(response.Body, limit+1))
	switch {
	case reply.status != http.StatusOK:
		message := errorMessage(reply.body)
		return nil, rejection(reply.status, message, reply.requestID, response.Header.Get("Retry-After"))
	case err != nil:
		problem := unreachable(err, false)
		problem.Message = "the response was cut off: " + err.Error()
		problem.Code, problem.RequestID = reply.status, reply.requestID
		return nil, problem
	case int64(len(reply.body)) > limit:
		problem := badResponse("the response has more than %d bytes", limit)
		problem.Code, problem.RequestID = reply.status, reply.requestID
		return nil, problem
	}
	return reply, nil
}

// isTransient reports whether a request without a response may succeed if it is sent again.
func isTransient(err error) bool {
	var (
		certificate *tls.CertificateVerificationError
		name        *net.DNSError
	)
	switch {
	case errors.As(err, &certificate):
		return false
	case errors.As(err, &name):
		return name.IsTemporary || name.IsTimeout
	case strings.Contains(err.Error(), "http2: client connection lost"): // net/http exports no such error
		return true
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return true
	default:
		return false
	}
}

func (t *httpTransport) close() error {
	t.pool.CloseIdleConnections()
	return nil
}
