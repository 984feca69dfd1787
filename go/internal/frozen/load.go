package frozen

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"strings"
)

// listed is what `go list` says of a package.
type listed struct {
	ImportPath string
	Dir        string
	Export     string
	GoFiles    []string
	Standard   bool
}

// Exports holds the compiler's export data of a package and of all that it needs.
type Exports struct {
	importer types.Importer
	packages map[string]listed
}

// Compile compiles a package and what it needs, as seen from directory; the build cache makes it
// quick when nothing has changed.
func Compile(directory, path string) (*Exports, error) {
	command := exec.Command("go", "list", "-p=1", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,Standard", path)
	command.Dir = directory
	var output, stderr bytes.Buffer
	command.Stdout, command.Stderr = &output, &stderr
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("%s can't be compiled: %s", path, strings.TrimSpace(stderr.String()))
	}
	packages := map[string]listed{}
	for decoder := json.NewDecoder(&output); ; {
		var one listed
		if err := decoder.Decode(&one); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("go list can't be read: %w", err)
		}
		packages[one.ImportPath] = one
	}
	open := func(path string) (io.ReadCloser, error) {
		one, found := packages[path]
		if !found || one.Export == "" {
			return nil, fmt.Errorf("there is no export data of %s", path)
		}
		return os.Open(one.Export)
	}
	return &Exports{importer.ForCompiler(token.NewFileSet(), "gc", open), packages}, nil
}

// Package returns the types of a compiled package.
func (e *Exports) Package(path string) (*types.Package, error) {
	loaded, err := e.importer.Import(path)
	if err != nil {
		return nil, fmt.Errorf("the export data of %s can't be read: %w", path, err)
	}
	return loaded, nil
}
