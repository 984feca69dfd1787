package dwcpml

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync/atomic"
)

// ModelInferenceClient asks a server. Make it once and share it: it keeps connections and windows.
type ModelInferenceClient struct {
	predictions
	asker *asker
}

// NewModelInferenceClient returns a client of the server at address: "http://host:port", "https://…",
// "grpc://host:port", "grpcs://…", or "host:port", which is HTTP. Nothing is sent yet.
func NewModelInferenceClient(address string) (*ModelInferenceClient, error) {
	return NewModelInferenceClientWithOptions(address)
}

// NewModelInferenceClientWithOptions is [NewModelInferenceClient] with other defaults.
func NewModelInferenceClientWithOptions(address string, options ...Option) (*ModelInferenceClient, error) {
	settled, err := settle(forClient, options)
	if err != nil {
		return nil, err
	}
	target, err := parseAddress(address, settled.protocol)
	if err != nil {
		return nil, err
	}
	var chosen transport
	if target.Scheme == "http" || target.Scheme == "https" {
		chosen = newHTTPTransport(target, settled)
	} else if chosen, err = newGRPCTransport(target, settled); err != nil {
		return nil, err
	}
	return newClient(chosen, settled), nil
}

func newClient(chosen transport, settled *settings) *ModelInferenceClient {
	asker := &asker{transport: chosen, settings: settled, pause: pause, jitter: jitter}
	return &ModelInferenceClient{
		predictions: predictions{oracle: asker, windows: newWindows(settled.maxLinks)},
		asker:       asker,
	}
}

// Ready returns nil when the server says that it can serve the model with this full name.
func (c *ModelInferenceClient) Ready(ctx context.Context, model string) error {
	spec, err := specOf(model)
	if err != nil {
		return err
	}
	said, err := labelsOf(ctx, model)
	if err != nil {
		return err
	}
	return c.asker.ready(ctx, &call{labels: said, spec: spec})
}

// Close closes the connections; calls under way end with an error.
func (c *ModelInferenceClient) Close() error {
	if c.asker.closed.Swap(true) {
		return nil
	}
	return c.asker.transport.close()
}

// asker is the oracle behind a network: deadlines, attempts, and a transport.
type asker struct {
	transport transport
	settings  *settings
	closed    atomic.Bool
	pause     pauseFunc
	jitter    func() float64
}

func (a *asker) ask(ctx context.Context, question *call) ([]Answer, error) {
	var answers []Answer
	err := a.try(ctx, question, func(ctx context.Context) *Error {
		var problem *Error
		answers, problem = a.transport.infer(ctx, question)
		return problem
	})
	return answers, err
}

func (a *asker) ready(ctx context.Context, question *call) error {
	return a.try(ctx, question, func(ctx context.Context) *Error {
		return a.transport.ready(ctx, question)
	})
}

// parseAddress returns the address with a scheme: http, https, grpc or grpcs.
func parseAddress(address string, protocol Protocol) (*url.URL, error) {
	if strings.Contains(address, "@") { // not quoted: it may be a password
		return nil, invalid("", "the address may hold no user and no password")
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
		return nil, invalid("", "%q names no host", address)
	case isGRPC && target.Port() == "":
		return nil, invalid("", "%q names no port", address)
	case target.RawQuery != "" || target.Fragment != "":
		return nil, invalid("", "%q may hold a scheme, a host, a port and, for HTTP, a path only", address)
	case isGRPC && target.Path != "" && target.Path != "/":
		return nil, invalid("", "%q has a path, which gRPC has no use for", address)
	case protocol == HTTP && isGRPC || protocol == GRPC && isHTTP:
		return nil, invalid("", "%q has a scheme of the other protocol than WithProtocol", address)
	}
	return target, nil
}

// reason returns what is wrong without the address, which the message names already or has no need of.
func reason(err error) error {
	var parsing *url.Error
	if errors.As(err, &parsing) {
		return parsing.Err
	}
	return err
}
