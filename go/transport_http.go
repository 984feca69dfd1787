package dwcpml

import (
	"bytes"
	"context"
	"crypto/tls"
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
	answerBytesBase        = 1 << 20
	answerBytesPerInstance = 4 << 10
)

// httpTransport speaks the V1 protocol, as KServe and TensorFlow Serving do.
type httpTransport struct {
	base     string
	versions map[string]string
	client   *http.Client
	pool     *http.Transport
}

func newHTTPTransport(target *url.URL, settled *settings) *httpTransport {
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	pool := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSClientConfig:     settled.tls,
		TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConns:        settled.maxIdle,
		MaxIdleConnsPerHost: settled.maxIdle,
		IdleConnTimeout:     60 * time.Second,
		DisableCompression:  true,
		ForceAttemptHTTP2:   target.Scheme == "https",
	}
	return &httpTransport{
		base:     strings.TrimRight(target.String(), "/"),
		versions: settled.versions,
		pool:     pool,
		client: &http.Client{
			Transport: pool,
			// A redirected POST would lose its body, and an inference server has none to give.
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

func (t *httpTransport) infer(ctx context.Context, question *call) ([]Answer, *Error) {
	body := encodeInstances(question.spec.Input.Shape, question.instances)
	reply, problem := t.send(ctx, http.MethodPost, t.url(question.spec.Name)+":predict", body, question)
	if problem != nil {
		return nil, problem
	}
	answers, problem := decodePredictions(question.spec, reply.body, len(question.instances))
	if problem != nil {
		problem.Code, problem.RequestID = reply.status, reply.requestID
	}
	return answers, problem
}

func (t *httpTransport) ready(ctx context.Context, question *call) *Error {
	reply, problem := t.send(ctx, http.MethodGet, t.url(question.spec.Name), nil, question)
	if problem != nil {
		return problem
	}
	if problem = decodeReady(reply.body); problem != nil {
		problem.Code, problem.RequestID = reply.status, reply.requestID
	}
	return problem
}

type httpReply struct {
	status    int
	requestID string
	body      []byte
}

// send returns an answer with status 200 and its whole body.
func (t *httpTransport) send(
	ctx context.Context, method, address string, body []byte, question *call,
) (*httpReply, *Error) {
	request, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, invalid("", "the request can't be made: %s", reason(err))
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	request.Header.Set("Accept", "application/json")
	// Not sent, as it is empty: it tells the pool that it may send again over another connection when
	// a kept one turns out to be dead. A server that restarted leaves as many of them as are kept,
	// more than there are attempts.
	request.Header["Idempotency-Key"] = nil
	question.headers(request.Header.Set)
	response, err := t.client.Do(request)
	if err != nil {
		return nil, unreachable(reason(err), passing(err))
	}
	defer response.Body.Close()
	reply := &httpReply{status: response.StatusCode, requestID: response.Header.Get(headerRequestID)}
	limit := answerBytesBase + answerBytesPerInstance*int64(len(question.instances))
	reply.body, err = io.ReadAll(io.LimitReader(response.Body, limit+1))
	switch {
	case reply.status != http.StatusOK:
		message := errorMessage(reply.body)
		return nil, refusal(reply.status, message, reply.requestID, response.Header.Get("Retry-After"))
	case err != nil:
		problem := unreachable(err, false)
		problem.Message = "the answer broke off: " + err.Error()
		problem.Code, problem.RequestID = reply.status, reply.requestID
		return nil, problem
	case int64(len(reply.body)) > limit:
		problem := badAnswer("the answer is over %d bytes", limit)
		problem.Code, problem.RequestID = reply.status, reply.requestID
		return nil, problem
	}
	return reply, nil
}

// passing says whether a request that got no answer failed in a way that may be over in a moment.
func passing(err error) bool {
	var (
		certificate *tls.CertificateVerificationError
		name        *net.DNSError
	)
	switch {
	case errors.As(err, &certificate):
		return false
	case errors.As(err, &name):
		return name.IsTemporary || name.IsTimeout
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
