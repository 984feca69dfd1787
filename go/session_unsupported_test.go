//go:build !(cgo && onnxruntime)

package dwcpml

import (
	"errors"
	"testing"
)

func TestLocalModelsNeedTheBuildTag(t *testing.T) {
	_, err := NewLocalModels("testdata/bundles")
	wantError(t, err, errors.ErrUnsupported, "onnxruntime")
}
