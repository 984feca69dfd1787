package dwcpml

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync/atomic"
)

// ModelInferenceClient calls a model server. Make one and share it: it holds connections and windows.
type ModelInferenceClient struct {
	predictor
	remote *remote
}

// NewModelInferenceClient returns a client of the server at address: "http://host:port", "https://…",
// "grpc://host:port", "grpcs://…", or "host:port", which is HTTP. Nothing is sent yet.
func NewModelInferenceClient(address string) (*ModelInferenceClient, error) {
	return NewModelInferenceClientWithOptions(address)
}

// NewModelInferenceClientWithOptions is [NewModelInferenceClient] with other defaults.
func NewModelInferenceClientWithOptions(address string, options ...Option) (*ModelInferenceClient, error) {
	config, err := newSettings(forClient, options)
	if err != nil {
		return nil, err
	}
	target, err := parseAddress(address, config.protocol)
	if err != nil {
		return nil, err
	}
	var chosen transport
	if target.Scheme == "http" || target.Scheme == "https" {
		chosen = newHTTPTransport(target, config)
	} else if chosen, err = newGRPCTransport(target, config); err != nil {
		return nil, err
	}
	return newClient(chosen, config), nil
}

func newClient(chosen transport, config *settings) *ModelInferenceClient {
	remote := &remote{
		transport: chosen, settings: config, pause: pause, jitter: jitter,
		made: newMemory(config.maxOutcomes, config.outcomeAge),
	}
	return &ModelInferenceClient{
		predictor: predictor{backend: remote, windows: newWindows(config.maxLinks)},
		remote:    remote,
	}
}

// Ready returns nil if the server can serve the model with this full name.
func (c *ModelInferenceClient) Ready(ctx context.Context, model string) error {
	spec, err := specOf(model)
	if err != nil {
		return err
	}
	labels, err := labelsOf(ctx, model)
	if err != nil {
		return err
	}
	return c.remote.ready(ctx, &modelCall{callLabels: labels, spec: spec})
}

// Close closes the connections; calls in progress end with an error.
func (c *ModelInferenceClient) Close() error {
	if c.remote.closed.Swap(true) {
		return nil
	}
	return c.remote.transport.close()
}

// remote is the backend on a server: deadlines, attempts, and a transport.
type remote struct {
	transport transport
	settings  *settings
	made      *memory
	closed    atomic.Bool
	pause     pauseFunc
	jitter    func() float64
}

func (r *remote) infer(ctx context.Context, call *modelCall) ([]Prediction, error) {
	var predictions []Prediction
	err := r.try(ctx, call, func(ctx context.Context) *Error {
		var problem *Error
		predictions, problem = r.transport.infer(ctx, call)
		return problem
	})
	if err == nil && call.named && call.version != "" && len(predictions) == 1 {
		r.made.put(call, predictions[0])
	}
	return predictions, err
}

func (r *remote) ready(ctx context.Context, call *modelCall) error {
	return r.try(ctx, call, func(ctx context.Context) *Error {
		return r.transport.ready(ctx, call)
	})
}

// parseAddress returns the address with a scheme: http, https, grpc or grpcs.
func parseAddress(address string, protocol Protocol) (*url.URL, error) {
	if strings.Contains(address, "@") { // the address is not repeated: it may contain a password
		return nil, invalid("", "the address may not contain a user or a password")
	}
	scheme := "http"
	if protocol == GRPC {
		scheme = "grpc"
	}
	full := address
	if !strings.Contains(address, "://") {
		full = scheme + "://" + address
	}
	target, err := url.Parse(full)
	if err != nil {
		return nil, invalid("", "%q is not an address: %s", address, reason(err))
	}
	isHTTP := target.Scheme == "http" || target.Scheme == "https"
	isGRPC := target.Scheme == "grpc" || target.Scheme == "grpcs"
	switch {
	case !isHTTP && !isGRPC:
		return nil, invalid("", "%q has the scheme %q; use http, https, grpc or grpcs", address, target.Scheme)
	case target.Hostname() == "":
		return nil, invalid("", "%q has no host", address)
	case isGRPC && target.Port() == "":
		return nil, invalid("", "%q has no port", address)
	case target.RawQuery != "" || target.Fragment != "":
		return nil, invalid("", "%q may only contain a scheme, a host, a port and, for HTTP, a path", address)
	case isGRPC && target.Path != "" && target.Path != "/":
		return nil, invalid("", "%q has a path, which gRPC does not support", address)
	case protocol == HTTP && isGRPC || protocol == GRPC && isHTTP:
		return nil, invalid("", "%q has a scheme that contradicts WithProtocol", address)
	}
	return target, nil
}

// reason returns the error without the address, which the message contains already.
func reason(err error) error {
	var parsing *url.Error
	if errors.As(err, &parsing) {
		return parsing.Err
	}
	return err
}
