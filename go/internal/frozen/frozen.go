// Package frozen lists the exported functions and methods of a compiled package and compares them
// with an interface that may not change.
package frozen

import (
	"encoding/json"
	"fmt"
	"go/types"
	"os"
	"slices"
	"strings"
)

// Interface maps the name of an exported function, "Name" or "Type.Name" for a method, to its
// signature with full package paths and without the names of its parameters.
type Interface map[string]string

// Read reads an interface from a JSON file.
func Read(path string) (Interface, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the frozen interface can't be read: %w", err)
	}
	var read Interface
	if err := json.Unmarshal(text, &read); err != nil {
		return nil, fmt.Errorf("%s is not a JSON object of names and signatures: %w", path, err)
	}
	if len(read) == 0 {
		return nil, fmt.Errorf("%s freezes nothing", path)
	}
	return read, nil
}

// Of returns the exported functions of a package, and the exported methods of its exported types as
// a caller sees them: those of pointers too, and those of embedded types.
func Of(pkg *types.Package) Interface {
	actual := Interface{}
	for _, name := range pkg.Scope().Names() {
		object := pkg.Scope().Lookup(name)
		if !object.Exported() {
			continue
		}
		switch object := object.(type) {
		case *types.Func:
			actual[name] = signature(object)
		case *types.TypeName:
			for method := range methods(object.Type()) {
				if method.Exported() {
					actual[name+"."+method.Name()] = signature(method)
				}
			}
		}
	}
	return actual
}

func methods(of types.Type) func(yield func(*types.Func) bool) {
	if !types.IsInterface(of) {
		of = types.NewPointer(of)
	}
	set := types.NewMethodSet(of)
	return func(yield func(*types.Func) bool) {
		for at := range set.Len() {
			method, isFunc := set.At(at).Obj().(*types.Func)
			if isFunc && !yield(method) {
				return
			}
		}
	}
}

// signature writes parameters and results by type alone: renaming one breaks no caller.
func signature(of *types.Func) string {
	whole := of.Signature()
	bare := types.NewSignatureType(nil, nil, nil, unnamed(whole.Params()), unnamed(whole.Results()), whole.Variadic())
	return types.TypeString(bare, func(pkg *types.Package) string { return pkg.Path() })
}

func unnamed(tuple *types.Tuple) *types.Tuple {
	var variables []*types.Var
	for at := range tuple.Len() {
		variables = append(variables, types.NewParam(0, nil, "", tuple.At(at).Type()))
	}
	return types.NewTuple(variables...)
}

// Compare returns one sentence for each frozen signature that is missing or has changed, in the
// order of the names. What is exported beyond the frozen interface is no matter.
func Compare(frozen, actual Interface) []string {
	var broken []string
	names := make([]string, 0, len(frozen))
	for name := range frozen {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		switch got, found := actual[name]; {
		case !found:
			broken = append(broken, fmt.Sprintf("%s is frozen and missing.", name))
		case got != frozen[name]:
			broken = append(broken, fmt.Sprintf("%s is frozen as %s and is %s.", name, short(frozen[name]), short(got)))
		}
	}
	return broken
}

func short(signature string) string { return strings.TrimPrefix(signature, "func") }
