// Package target opens the target of a command: a server by its address, or bundles in the process.
package target

import (
	"context"
	"errors"
	"flag"
	"time"

	"ml.dwcp.io/dwcpml"
)

// Models are the methods that the commands call.
type Models interface {
	Infer(ctx context.Context, model string, instances [][]float64) ([]dwcpml.Prediction, error)
	Close() error
}

// Flags are the flags of the target.
type Flags struct {
	Address string
	Bundles string
	Library string
	Timeout time.Duration
	Retry   int
}

// Add defines the flags.
func (f *Flags) Add(flags *flag.FlagSet) {
	flags.StringVar(&f.Address, "address", "", "`address` of a server: http://host:port or grpc://host:port")
	flags.StringVar(&f.Bundles, "bundles", "", "`directory` of bundles to run in the process (build tag onnxruntime)")
	flags.StringVar(&f.Library, "library", "", "ONNX Runtime library for -bundles; default "+dwcpml.LibraryVariable)
	flags.DurationVar(&f.Timeout, "timeout", 10*time.Second, "longest time for one request, retries included")
	flags.IntVar(&f.Retry, "attempts", 3, "how often one request is sent at most")
}

// Open opens the one target that the flags name; parallel is the number of requests at once.
func (f *Flags) Open(parallel int) (Models, error) {
	if (f.Address == "") == (f.Bundles == "") {
		return nil, errors.New("name either -address or -bundles")
	}
	if f.Bundles != "" {
		var options []dwcpml.Option
		if f.Library != "" {
			options = append(options, dwcpml.WithLibrary(f.Library))
		}
		return whole(dwcpml.NewLocalModels(f.Bundles, options...))
	}
	return whole(dwcpml.NewModelInferenceClientWithOptions(f.Address,
		dwcpml.WithTimeout(f.Timeout), dwcpml.WithAttempts(f.Retry), dwcpml.WithMaxIdleConnections(parallel)))
}

// whole keeps a nil pointer from becoming an interface that is not nil.
func whole[T Models](models T, err error) (Models, error) {
	if err != nil {
		return nil, err
	}
	return models, nil
}
