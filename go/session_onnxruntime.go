//go:build cgo && onnxruntime

package dwcpml

import (
	"fmt"
	"sync"

	ort "github.com/yalue/onnxruntime_go"
)

// ortSession is one model in ONNX Runtime, with one thread for each call: the models are too
// small for more.
type ortSession struct {
	opened  *bundle
	session *ort.DynamicAdvancedSession
}

var ortStart sync.Mutex

// startRuntime loads the library, once in a process; the program may have loaded it already.
func startRuntime(library string) error {
	ortStart.Lock()
	defer ortStart.Unlock()
	if ort.IsInitialized() {
		return nil
	}
	if library == "" {
		return fmt.Errorf("name the ONNX Runtime library with WithLibrary or %s", LibraryVariable)
	}
	ort.SetSharedLibraryPath(library)
	return ort.InitializeEnvironment(ort.WithLogLevelError())
}

func openSession(opened *bundle, library string) (session, error) {
	if err := startRuntime(library); err != nil {
		return nil, err
	}
	options, err := ort.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	defer options.Destroy()
	if err := options.SetIntraOpNumThreads(1); err != nil {
		return nil, err
	}
	if err := options.SetInterOpNumThreads(1); err != nil {
		return nil, err
	}
	names := make([]string, len(opened.form.Outputs))
	for at, output := range opened.form.Outputs {
		names[at] = output.Name
	}
	running, err := ort.NewDynamicAdvancedSessionWithONNXData(
		opened.onnx, []string{opened.spec.Input.Name}, names, options)
	if err != nil {
		return nil, err
	}
	return &ortSession{opened: opened, session: running}, nil
}

func (s *ortSession) run(values []float32, count int) ([]Prediction, *Error) {
	shape := []int64{int64(count)}
	for _, length := range s.opened.spec.Input.Shape {
		shape = append(shape, int64(length))
	}
	input, err := ort.NewTensor(ort.NewShape(shape...), values)
	if err != nil {
		return nil, s.failure(err)
	}
	defer input.Destroy()
	outputs := make([]ort.Value, len(s.opened.form.Outputs)) // nil: the runtime makes them
	if err := s.session.Run([]ort.Value{input}, outputs); err != nil {
		return nil, s.failure(err)
	}
	defer func() {
		for _, output := range outputs {
			_ = output.Destroy()
		}
	}()
	predictions := make([]Prediction, count)
	for at := range predictions {
		predictions[at] = Prediction{}
	}
	for at, output := range s.opened.form.Outputs {
		if problem := give(predictions, output, outputs[at]); problem != nil {
			return nil, problem
		}
	}
	return predictions, nil
}

// give copies one output into the predictions: the runtime's memory is freed after the run.
func give(predictions []Prediction, output tensorSpec, value ort.Value) *Error {
	var (
		floats []float32
		ints   []int64
		bools  []bool
	)
	switch tensor := value.(type) {
	case *ort.Tensor[float32]:
		floats = append(floats, tensor.GetData()...)
	case *ort.Tensor[int64]:
		ints = append(ints, tensor.GetData()...)
	case *ort.Tensor[bool]:
		bools = append(bools, tensor.GetData()...)
	default:
		return badResponse("%s is not a tensor of the contract's dtypes", output.Name)
	}
	return distribute(predictions, output, floats, ints, bools)
}

func (s *ortSession) close() error { return s.session.Destroy() }

func (s *ortSession) failure(err error) *Error {
	return &Error{kind: ErrUnavailable, cause: err, Message: fmt.Sprintf("the model failed: %s", err)}
}
