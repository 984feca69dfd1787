//go:build cgo && onnxruntime

package dwcpml

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// library returns the ONNX Runtime of the environment, or the one of the project's Python.
func library(t *testing.T) string {
	t.Helper()
	if path := os.Getenv(LibraryVariable); path != "" {
		return path
	}
	found, _ := filepath.Glob("../.venv/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.*")
	if len(found) == 0 {
		t.Skipf("SKIPPED: there is no ONNX Runtime: name its library in %s", LibraryVariable)
	}
	return found[0]
}

func loadExamples(t *testing.T) *LocalModels {
	t.Helper()
	local, err := NewLocalModels("testdata/bundles", WithLibrary(library(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = local.Close() })
	return local
}

// same returns count values whose mean is value: which is what the example bundles predict from.
func same(count int, value float64) []float64 {
	values := make([]float64, count)
	for at := range values {
		values[at] = value
	}
	return values
}

func TestTheFourCallsInTheProcess(t *testing.T) {
	local := loadExamples(t)
	ctx := context.Background()
	if got, err := local.PredictBandwidth(ctx, same(7, 12.5)); err != nil || got != 12.5 {
		t.Errorf("PredictBandwidth: %v, %v", got, err)
	}
	if got, err := local.PredictBandwidth(ctx, same(7, 22.5)); err != nil || got != 13.5 {
		t.Errorf("PredictBandwidth of a window: %v, %v", got, err)
	}
	if got, err := local.SelectCompression(ctx, same(6, 3.75)); err != nil || got != 3 {
		t.Errorf("SelectCompression: %v, %v", got, err)
	}
	if failing, score, err := local.DetectAnomaly(ctx, same(6, 0.75)); err != nil || !failing || score != 0.75 {
		t.Errorf("DetectAnomaly: %v, %v, %v", failing, score, err)
	}
	if high, err := local.DetectHighLatency(ctx, same(20, 0.25)); err != nil || high {
		t.Errorf("DetectHighLatency: %v, %v", high, err)
	}
	if versions := local.Versions(); len(versions) != 4 || versions[ConsensusLatency] != "7" {
		t.Errorf("the versions are %v", versions)
	}
}

func TestAllOutputsOfSeveralInstancesInTheProcess(t *testing.T) {
	predictions, err := loadExamples(t).Infer(context.Background(), CompressionSelector, [][]float64{same(6, 1), same(6, 100)})
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range []struct {
		level int64
		mean  float32
	}{{1, 1}, {9, 100}} {
		level, _ := predictions[at].Int("compression_level")
		probabilities, _ := predictions[at].Floats("probabilities")
		if level != want.level || len(probabilities) != 10 || probabilities[9] != want.mean {
			t.Errorf("prediction %d is %v", at, predictions[at])
		}
	}
}

func TestManyGoroutinesShareASession(t *testing.T) {
	local := loadExamples(t)
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for range 50 {
				_, score, err := local.DetectAnomaly(context.Background(), same(6, float64(worker)))
				if err != nil || score != float64(worker) {
					t.Errorf("got %v, %v; want %d", score, err, worker)
				}
			}
		})
	}
	group.Wait()
}

func TestAFileThatIsNotONNXIsRejected(t *testing.T) {
	spec, _ := specOf(ReliabilityDetector)
	_, err := openSession(&bundle{spec: spec, form: spec.Forms[0], onnx: []byte("nothing")}, library(t))
	if err == nil {
		t.Fatal("it was loaded")
	}
}
