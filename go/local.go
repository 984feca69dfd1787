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
	predictions
	local *localOracle
}

// NewLocalModels loads the newest version of each model in a directory of bundles,
// <model>/<version>/. A bundle whose manifest or model.onnx differs from what was sealed is refused.
// A model without a bundle answers [ErrModelNotFound] when it is asked. Without the build tag
// onnxruntime the error is [errors.ErrUnsupported].
func NewLocalModels(bundlesDirectory string, options ...Option) (*LocalModels, error) {
	settled, err := settle(forLocal, options)
	if err != nil {
		return nil, err
	}
	if settled.library == "" {
		settled.library = os.Getenv(LibraryVariable)
	}
	found, err := findBundles(bundlesDirectory, settled.versions)
	if err != nil {
		return nil, err
	}
	return newLocalModels(found, settled, openSession)
}

// session is one loaded model. It may run several questions at once.
type session interface {
	// run takes count instances as one row-major block; the answers hold all outputs.
	run(values []float32, count int) ([]Answer, *Error)
	close() error
}

type sessionOpener func(opened *bundle, library string) (session, error)

func newLocalModels(found []*bundle, settled *settings, open sessionOpener) (*LocalModels, error) {
	local := &localOracle{sessions: map[string]session{}, versions: map[string]string{}}
	for _, opened := range found {
		running, err := open(opened, settled.library)
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
		predictions: predictions{oracle: local, windows: newWindows(settled.maxLinks)},
		local:       local,
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

// Close waits for the calls under way and frees the models.
func (m *LocalModels) Close() error { return m.local.close() }

// localOracle is the oracle inside the process.
type localOracle struct {
	mutex    sync.RWMutex // held for reading while a question runs
	closed   bool
	sessions map[string]session
	versions map[string]string
}

func (o *localOracle) ask(ctx context.Context, question *call) ([]Answer, error) {
	if err := ctx.Err(); err != nil {
		return nil, question.complete(givenUp(err))
	}
	o.mutex.RLock()
	defer o.mutex.RUnlock()
	if o.closed {
		return nil, question.complete(&Error{kind: ErrUnavailable, Message: "the models are closed"})
	}
	running, found := o.sessions[question.spec.Name]
	if !found {
		return nil, question.complete(notFound("", "there is no bundle of this model"))
	}
	width := question.spec.Input.size()
	values := make([]float32, 0, width*len(question.instances))
	for _, instance := range question.instances {
		for _, value := range instance {
			values = append(values, float32(value))
		}
	}
	answers, problem := running.run(values, len(question.instances))
	if problem != nil {
		return nil, question.complete(problem)
	}
	return answers, nil
}

func (o *localOracle) close() error {
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
