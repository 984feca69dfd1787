package dwcpml

import (
	"crypto/tls"
	"fmt"
	"time"
)

// Protocol is the protocol that a server is called with.
type Protocol string

// The protocols, each with the schemes of addresses that choose it.
const (
	// HTTP is the V1 protocol over HTTP: http://, https://, or no scheme.
	HTTP Protocol = "http"
	// GRPC is the V2 (Open Inference) protocol over gRPC: grpc:// or grpcs://.
	GRPC Protocol = "grpc"
)

const (
	forClient = 1 << iota
	forLocal
)

// Option changes a default of a constructor. A constructor rejects an option that does not apply to it.
type Option struct {
	name  string
	users int
	apply func(*settings) error
}

type settings struct {
	timeout     time.Duration
	attempts    int
	backoff     time.Duration
	maxBackoff  time.Duration
	maxLinks    int
	maxIdle     int
	maxOutcomes int
	outcomeAge  time.Duration
	protocol    Protocol
	tls         *tls.Config
	versions    map[string]string
	library     string
}

func defaults() *settings {
	return &settings{
		timeout:     time.Second,
		attempts:    3,
		backoff:     10 * time.Millisecond,
		maxBackoff:  250 * time.Millisecond,
		maxLinks:    10_000,
		maxIdle:     64,
		maxOutcomes: 10_000,
		outcomeAge:  15 * time.Minute,
		versions:    map[string]string{},
	}
}

// newSettings applies the options in order; user is forClient or forLocal.
func newSettings(user int, options []Option) (*settings, error) {
	config := defaults()
	for _, option := range options {
		if option.apply == nil || option.users&user == 0 {
			return nil, invalid("", "the option %s does not apply here", option.label())
		}
		if err := option.apply(config); err != nil {
			return nil, invalid("", "%s: %s", option.name, err)
		}
	}
	return config, nil
}

func (o Option) label() string {
	if o.name == "" {
		return "Option{}"
	}
	return o.name
}

func option(name string, users int, apply func(*settings) error) Option {
	return Option{name: name, users: users, apply: apply}
}

// WithTimeout limits a call without a deadline, retries included; the default is 1 s.
func WithTimeout(timeout time.Duration) Option {
	return option("WithTimeout", forClient, func(s *settings) error {
		s.timeout = timeout
		return above(0, timeout)
	})
}

// WithAttempts sets how often a call is sent at most, the first attempt included; the default is 3.
func WithAttempts(attempts int) Option {
	return option("WithAttempts", forClient, func(s *settings) error {
		s.attempts = attempts
		return above(0, attempts)
	})
}

// WithBackoff sets the wait before the second attempt, which doubles with each further one, and the
// maximum wait. The defaults are 10 ms and 250 ms. Each wait is drawn from the upper half of its
// range, so that many clients do not retry at the same time.
func WithBackoff(initial, maximum time.Duration) Option {
	return option("WithBackoff", forClient, func(s *settings) error {
		s.backoff, s.maxBackoff = initial, maximum
		if maximum < initial {
			return fmt.Errorf("the maximum wait %s is shorter than the initial wait %s", maximum, initial)
		}
		return above(0, initial)
	})
}

// WithMaxLinks limits the number of links whose window is stored; the default is 10,000.
func WithMaxLinks(links int) Option {
	return option("WithMaxLinks", forClient|forLocal, func(s *settings) error {
		s.maxLinks = links
		return above(0, links)
	})
}

// WithOutcomes sets how many predictions are kept for [ModelInferenceClient.ReportOutcome], and for how
// long; the defaults are 10,000 and 15 minutes. Only calls whose context has [WithRequestID] are kept.
func WithOutcomes(predictions int, age time.Duration) Option {
	return option("WithOutcomes", forClient, func(s *settings) error {
		s.maxOutcomes, s.outcomeAge = predictions, age
		if err := above(0, predictions); err != nil {
			return err
		}
		return above(0, age)
	})
}

// WithMaxIdleConnections limits the idle HTTP connections that stay open; the default is 64. Set it to
// the number of concurrent calls, or further connections are opened and closed for each call. gRPC
// uses one connection for all calls.
func WithMaxIdleConnections(connections int) Option {
	return option("WithMaxIdleConnections", forClient, func(s *settings) error {
		s.maxIdle = connections
		return above(0, connections)
	})
}

// WithProtocol names the protocol of an address without a scheme.
func WithProtocol(protocol Protocol) Option {
	return option("WithProtocol", forClient, func(s *settings) error {
		s.protocol = protocol
		if protocol != HTTP && protocol != GRPC {
			return fmt.Errorf("there is no protocol %q; it is HTTP or GRPC", protocol)
		}
		return nil
	})
}

// WithTLSConfig sets certificates for https:// and grpcs://.
func WithTLSConfig(config *tls.Config) Option {
	return option("WithTLSConfig", forClient, func(s *settings) error {
		if config == nil {
			return fmt.Errorf("the configuration is nil")
		}
		s.tls = config.Clone()
		return nil
	})
}

// WithModelVersion selects a version of a model; the default is the server's current version, or the
// newest one in a bundle directory.
func WithModelVersion(model, version string) Option {
	return option("WithModelVersion", forClient|forLocal, func(s *settings) error {
		if _, err := specOf(model); err != nil {
			return err
		}
		if !isValidVersion(version) {
			return fmt.Errorf("%q can't be a version", version)
		}
		s.versions[model] = version
		return nil
	})
}

// WithLibrary names the ONNX Runtime library, libonnxruntime.so.*; the default is the environment
// variable DWCP_ONNXRUNTIME_LIBRARY.
func WithLibrary(path string) Option {
	return option("WithLibrary", forLocal, func(s *settings) error {
		s.library = path
		if path == "" {
			return fmt.Errorf("the path is empty")
		}
		return nil
	})
}

func above[T int | time.Duration](bound, value T) error {
	if value <= bound {
		return fmt.Errorf("%v is not above %v", value, bound)
	}
	return nil
}

// isValidVersion reports whether a version can be a directory name and a segment of a URL.
func isValidVersion(version string) bool {
	if version == "" || len(version) > 128 || version[0] == '.' {
		return false
	}
	for _, letter := range version {
		switch {
		case letter >= 'a' && letter <= 'z', letter >= 'A' && letter <= 'Z', letter >= '0' && letter <= '9':
		case letter == '-', letter == '_', letter == '.', letter == '+':
		default:
			return false
		}
	}
	return true
}
