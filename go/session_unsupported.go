//go:build !(cgo && onnxruntime)

package dwcpml

import (
	"errors"
	"fmt"
)

func openSession(*bundle, string) (session, error) {
	return nil, fmt.Errorf("the program was built without cgo and the tag onnxruntime: %w", errors.ErrUnsupported)
}
