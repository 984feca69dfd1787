package dwcpml

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// recordingSession returns a fixed prediction, and records its inputs.
type recordingSession struct {
	prediction Prediction
	blocks     [][]float32
	counts     []int
	closed     int
}

func (s *recordingSession) run(values []float32, count int) ([]Prediction, *Error) {
	s.blocks = append(s.blocks, values)
	s.counts = append(s.counts, count)
	predictions := make([]Prediction, count)
	for at := range predictions {
		predictions[at] = s.prediction
	}
	return predictions, nil
}

func (s *recordingSession) close() error {
	s.closed++
	return nil
}

func localModels(t *testing.T, running session, models ...string) *LocalModels {
	t.Helper()
	var bundles []*bundle
	for _, model := range models {
		spec, err := specOf(model)
		if err != nil {
			t.Fatal(err)
		}
		bundles = append(bundles, &bundle{spec: spec, form: spec.Forms[0], version: "7"})
	}
	local, err := newLocalModels(bundles, defaults(), func(*bundle, string) (session, error) { return running, nil })
	if err != nil {
		t.Fatal(err)
	}
	return local
}

func TestLocalModelsKeepTheSameWindows(t *testing.T) {
	running := &recordingSession{prediction: Prediction{"next_throughput_mbps": float32(5)}}
	local := localModels(t, running, BandwidthPredictor)
	ctx := WithLink(context.Background(), "a/b")
	for _, first := range []float64{1, 2} {
		if got, err := local.PredictBandwidth(ctx, observation(first)); err != nil || got != 5 {
			t.Fatalf("got %v, %v", got, err)
		}
	}
	block := running.blocks[1]
	if len(block) != 70 || block[56] != 1 || block[63] != 2 || running.counts[1] != 1 {
		t.Fatalf("the block was %v", block)
	}
	_, err := local.DetectHighLatency(ctx, make([]float64, 20))
	wantError(t, err, ErrModelNotFound, "no bundle")
	done, cancel := context.WithCancel(ctx)
	cancel()
	_, err = local.PredictBandwidth(done, observation(3))
	wantError(t, err, context.Canceled)
	for range 2 {
		if err := local.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, err = local.PredictBandwidth(ctx, observation(3))
	wantError(t, err, ErrUnavailable, "closed")
	if running.closed != 1 || len(running.blocks) != 2 {
		t.Fatalf("the session was closed %d times and ran %d times", running.closed, len(running.blocks))
	}
}

func TestAModelThatCannotBeLoadedClosesTheOthers(t *testing.T) {
	bundles, err := findBundles("testdata/bundles", nil)
	if err != nil {
		t.Fatal(err)
	}
	running := &recordingSession{}
	boom := errors.New("boom")
	_, err = newLocalModels(bundles, defaults(), func(opened *bundle, _ string) (session, error) {
		if opened.spec.Name == ReliabilityDetector {
			return nil, boom
		}
		return running, nil
	})
	wantError(t, err, boom, ReliabilityDetector)
	wantError(t, err, ErrUnavailable)
	if running.closed != 2 {
		t.Fatalf("%d sessions were closed, want 2", running.closed)
	}
}

func copyBundles(t *testing.T) string {
	t.Helper()
	directory := t.TempDir()
	if err := os.CopyFS(directory, os.DirFS("testdata/bundles")); err != nil {
		t.Fatal(err)
	}
	return directory
}

func TestFindBundlesTakesTheNewestVersion(t *testing.T) {
	directory := copyBundles(t)
	model := filepath.Join(directory, ReliabilityDetector)
	for version, text := range map[string]string{"10": "", "9": "", ".11.partial": "", "12": "no manifest"} {
		if err := os.CopyFS(filepath.Join(model, version), os.DirFS(filepath.Join(model, "7"))); err != nil {
			t.Fatal(err)
		}
		manifest := filepath.Join(model, version, manifestName)
		if text != "" {
			if err := os.Remove(manifest); err != nil {
				t.Fatal(err)
			}
			continue
		}
		edit(t, manifest, `"version": "7"`, `"version": "`+version+`"`)
	}
	for requested, want := range map[string]string{"": "10", "9": "9", "7": "7"} {
		versions := map[string]string{}
		if requested != "" {
			versions[ReliabilityDetector] = requested
		}
		bundles, err := findBundles(directory, versions)
		if err != nil {
			t.Fatal(err)
		}
		if len(bundles) != 4 || bundles[2].version != want {
			t.Errorf("requested %q: got %d bundles and version %s, want %s", requested, len(bundles), bundles[2].version, want)
		}
	}
	_, err := findBundles(directory, map[string]string{ReliabilityDetector: "12"})
	wantError(t, err, ErrModelNotFound, "version 12")
}

func TestVersionsAreOrderedByTheirNumbers(t *testing.T) {
	ordered := []string{"1", "2", "2.1", "2.10", "10", "20260102-030405", "20260102-100405", "v1", "v2", "v10", "v10a"}
	for at, left := range ordered {
		for other, right := range ordered {
			got := compareVersions(left, right)
			if want := at - other; got*want < 0 || (got == 0) != (want == 0) {
				t.Errorf("compare(%s, %s) = %d", left, right, got)
			}
		}
	}
}

func TestNoBundles(t *testing.T) {
	_, err := findBundles(filepath.Join(t.TempDir(), "none"), nil)
	wantError(t, err, ErrModelNotFound, "can't be opened")
	_, err = findBundles(t.TempDir(), nil)
	wantError(t, err, ErrModelNotFound, "manifest.json")
	half := t.TempDir()
	partial := filepath.Join(half, ReliabilityDetector, ".7.partial")
	if err := os.CopyFS(partial, os.DirFS("testdata/bundles/reliability_detector/7")); err != nil {
		t.Fatal(err)
	}
	_, err = findBundles(half, nil)
	wantError(t, err, ErrModelNotFound, "manifest.json")
}

func TestAChangedBundleIsRejected(t *testing.T) {
	for name, change := range map[string]struct {
		spoil func(t *testing.T, directory string)
		says  string
	}{
		"another model": {func(t *testing.T, d string) { appendTo(t, filepath.Join(d, onnxName)) }, "SHA-256"},
		"another digest": {func(t *testing.T, d string) {
			content, _ := os.ReadFile(filepath.Join(d, onnxName))
			digest := sha256.Sum256(content)
			edit(t, filepath.Join(d, manifestName), hex.EncodeToString(digest[:]), strings.Repeat("0", 64))
		}, "SHA-256"},
		"another size": {manifestEdit(`"size_bytes": 2`, `"size_bytes": 3`), "is not the file"},
		"a link": {func(t *testing.T, d string) {
			onnx := filepath.Join(d, onnxName)
			if err := errors.Join(os.Rename(onnx, onnx+".moved"), os.Symlink(onnxName+".moved", onnx)); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
		"no model": {func(t *testing.T, d string) {
			if err := os.Remove(filepath.Join(d, onnxName)); err != nil {
				t.Fatal(err)
			}
		}, fs.ErrNotExist.Error()[:4]},
		"no JSON":          {func(t *testing.T, d string) { appendTo(t, filepath.Join(d, manifestName)) }, "can't be read"},
		"another name":     {manifestEdit(`"name": "reliability_detector"`, `"name": "consensus_latency"`), "consensus_latency"},
		"another version":  {manifestEdit(`"version": "7"`, `"version": "8"`), "reliability_detector 8"},
		"another schema":   {manifestEdit(`"schema_version": 1`, `"schema_version": 2`), "schema version 2"},
		"another form":     {manifestEdit(`"form": "anomaly"`, `"form": "verdict"`), "verdict"},
		"another order":    {manifestEdit("failure_rate", "rate_of_failure"), "features"},
		"another input":    {manifestEdit(`"name": "features"`, `"name": "x"`), "inputs"},
		"another output":   {manifestEdit(`"is_anomaly"`, `"anomalous"`), "outputs"},
		"an unlisted file": {manifestEdit(`"model.onnx"`, `"model.bin"`), "does not list"},
	} {
		t.Run(name, func(t *testing.T) {
			directory := copyBundles(t)
			change.spoil(t, filepath.Join(directory, ReliabilityDetector, "7"))
			_, err := findBundles(directory, nil)
			wantError(t, err, ErrInvalidInput, change.says, "reliability_detector/7 is invalid")
		})
	}
}

func manifestEdit(from, to string) func(*testing.T, string) {
	return func(t *testing.T, directory string) { edit(t, filepath.Join(directory, manifestName), from, to) }
}

// edit replaces a part of a file; it fails if the part is not there.
func edit(t *testing.T, path, from, to string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(content), from, to, 1)
	if changed == string(content) {
		t.Fatalf("%s does not hold %s", path, from)
	}
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
}

func appendTo(t *testing.T, path string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(content, "x"...), 0o600); err != nil {
		t.Fatal(err)
	}
}
