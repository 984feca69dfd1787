package dwcpml

import (
	"context"
	"fmt"
	"os"
	"sync"
)

// LibraryVariable is the environment variable that names the ONNX Runtime library.
const LibraryVariable = "DWCP_ONNXRUNTIME_LIBRARY"

// LocalModels runs the bundles' model.onnx inside the process, without a server. The program must be
// built with cgo and the build tag onnxruntime.
type LocalModels struct {
	predictor
	local *localBackend
}

// NewLocalModels loads the newest version of each model in a directory of bundles,
// <model>/<version>/. It returns an error if the SHA-256 of a model.onnx is not the one in its manifest.
// A call to a model without a bundle returns [ErrModelNotFound]. Without the build tag
// onnxruntime the error is [errors.ErrUnsupported].
func NewLocalModels(bundlesDirectory string, options ...Option) (*LocalModels, error) {
	config, err := newSettings(forLocal, options)
	if err != nil {
		return nil, err
	}
	if config.library == "" {
		config.library = os.Getenv(LibraryVariable)
	}
	bundles, err := findBundles(bundlesDirectory, config.versions)
	if err != nil {
		return nil, err
	}
	return newLocalModels(bundles, config, openSession)
}

// session is one loaded model. It may run several calls concurrently.
type session interface {
	// run takes count instances as one row-major block and returns all outputs.
	run(values []float32, count int) ([]Prediction, *Error)
	close() error
}

type sessionOpener func(opened *bundle, library string) (session, error)

func newLocalModels(bundles []*bundle, config *settings, open sessionOpener) (*LocalModels, error) {
	local := &localBackend{sessions: map[string]session{}, versions: map[string]string{}}
	for _, opened := range bundles {
		running, err := open(opened, config.library)
		if err != nil {
			_ = local.close()
			return nil, &Error{
				Model: opened.spec.Name, kind: ErrUnavailable, cause: err,
				Message: fmt.Sprintf("the model can't be loaded: %s", err),
			}
		}
		local.sessions[opened.spec.Name] = running
		local.versions[opened.spec.Name] = opened.version
	}
	return &LocalModels{
		predictor: predictor{backend: local, windows: newWindows(config.maxLinks)},
		local:     local,
	}, nil
}

// Versions returns the version of each model that is loaded, by full name.
func (m *LocalModels) Versions() map[string]string {
	versions := make(map[string]string, len(m.local.versions))
	for model, version := range m.local.versions {
		versions[model] = version
	}
	return versions
}

// Close waits for the calls in progress and frees the models.
func (m *LocalModels) Close() error { return m.local.close() }

// localBackend is the backend inside the process.
type localBackend struct {
	mutex    sync.RWMutex // read-locked while a call runs
	closed   bool
	sessions map[string]session
	versions map[string]string
}

func (o *localBackend) infer(ctx context.Context, call *modelCall) ([]Prediction, error) {
	if err := ctx.Err(); err != nil {
		return nil, call.complete(contextError(err))
	}
	o.mutex.RLock()
	defer o.mutex.RUnlock()
	if o.closed {
		return nil, call.complete(&Error{kind: ErrUnavailable, Message: "the models are closed"})
	}
	running, found := o.sessions[call.spec.Name]
	if !found {
		return nil, call.complete(notFound("", "there is no bundle of this model"))
	}
	width := call.spec.Input.size()
	values := make([]float32, 0, width*len(call.instances))
	for _, instance := range call.instances {
		for _, value := range instance {
			values = append(values, float32(value))
		}
	}
	predictions, problem := running.run(values, len(call.instances))
	if problem != nil {
		return nil, call.complete(problem)
	}
	return predictions, nil
}

func (o *localBackend) close() error {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	if o.closed {
		return nil
	}
	o.closed = true
	var first error
	for _, running := range o.sessions {
		if err := running.close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}
