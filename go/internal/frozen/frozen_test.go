package frozen

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
)

const client = "ml.dwcp.io/dwcpml"

var compiled = sync.OnceValues(func() (*Exports, error) { return Compile("../..", client) })

func exports(t *testing.T) *Exports {
	t.Helper()
	found, err := compiled()
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func frozenInterface(t *testing.T) Interface {
	t.Helper()
	read, err := Read("../../frozen.json")
	if err != nil {
		t.Fatal(err)
	}
	return read
}

func TestTheCompiledClientKeepsTheFrozenInterface(t *testing.T) {
	loaded, err := exports(t).Package(client)
	if err != nil {
		t.Fatal(err)
	}
	if broken := Compare(frozenInterface(t), Of(loaded)); broken != nil {
		t.Fatal(strings.Join(broken, "\n"))
	}
}

func TestTheFrozenInterfaceIsTheDocumentedOne(t *testing.T) {
	call := func(results string) string { return "func(context.Context, []float64) " + results }
	promised := Interface{
		"NewModelInferenceClient":                "func(string) (*" + client + ".ModelInferenceClient, error)",
		"ModelInferenceClient.PredictBandwidth":  call("(float64, error)"),
		"ModelInferenceClient.SelectCompression": call("(int, error)"),
		"ModelInferenceClient.DetectAnomaly":     call("(bool, float64, error)"),
		"ModelInferenceClient.DetectHighLatency": call("(bool, error)"),
	}
	if read := frozenInterface(t); !reflect.DeepEqual(read, promised) {
		t.Fatalf("frozen.json is %v, want %v", read, promised)
	}
}

// mutated type-checks the client's own source after a change to the declaration of one function; the
// bodies are not checked, since callers of the old signature no longer fit.
func mutated(t *testing.T, change func(*ast.FuncDecl) (keep bool)) Interface {
	t.Helper()
	source := exports(t).packages[client]
	positions := token.NewFileSet()
	var files []*ast.File
	for _, name := range source.GoFiles {
		file, err := parser.ParseFile(positions, filepath.Join(source.Dir, name), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		remaining := file.Decls[:0]
		for _, declaration := range file.Decls {
			if function, isFunc := declaration.(*ast.FuncDecl); !isFunc || change(function) {
				remaining = append(remaining, declaration)
			}
		}
		file.Decls = remaining
		files = append(files, file)
	}
	config := types.Config{
		Importer: exports(t).importer, IgnoreFuncBodies: true,
		Error: func(error) {}, // the assertion that the client is a Models no longer holds
	}
	checked, _ := config.Check(client, positions, files, nil)
	return Of(checked)
}

// declares says whether a declaration is the one that a frozen name stands for. The methods are
// those of the type that ModelInferenceClient embeds.
func declares(function *ast.FuncDecl, name string) bool {
	_, method, isMethod := strings.Cut(name, ".")
	if !isMethod {
		return function.Recv == nil && function.Name.Name == name
	}
	if function.Recv == nil || function.Name.Name != method {
		return false
	}
	pointer, isPointer := function.Recv.List[0].Type.(*ast.StarExpr)
	return isPointer && pointer.X.(*ast.Ident).Name == "predictor"
}

func TestEachSignatureThatIsMutatedIsFound(t *testing.T) {
	frozen := frozenInterface(t)
	if broken := Compare(frozen, mutated(t, func(*ast.FuncDecl) bool { return true })); broken != nil {
		t.Fatalf("the source as it is: %v", broken)
	}
	mutations := map[string]func(*ast.FuncDecl) bool{
		"removed": func(*ast.FuncDecl) bool { return false },
		"renamed": func(function *ast.FuncDecl) bool {
			function.Name = ast.NewIdent(function.Name.Name + "2")
			return true
		},
		"one more parameter": func(function *ast.FuncDecl) bool {
			list := function.Type.Params
			list.List = append(list.List, &ast.Field{Names: []*ast.Ident{ast.NewIdent("more")}, Type: ast.NewIdent("int")})
			return true
		},
		"variadic": func(function *ast.FuncDecl) bool {
			list := function.Type.Params
			list.List = append(list.List, &ast.Field{
				Names: []*ast.Ident{ast.NewIdent("more")}, Type: &ast.Ellipsis{Elt: ast.NewIdent("int")},
			})
			return true
		},
		"another parameter": func(function *ast.FuncDecl) bool {
			list := function.Type.Params.List
			list[len(list)-1].Type = ast.NewIdent("bool")
			return true
		},
		"one result less": func(function *ast.FuncDecl) bool {
			results := function.Type.Results
			results.List = results.List[:len(results.List)-1]
			return true
		},
		"another result": func(function *ast.FuncDecl) bool {
			function.Type.Results.List[0].Type = ast.NewIdent("float32")
			return true
		},
	}
	for name := range frozen {
		for what, mutate := range mutations {
			t.Run(name+" "+what, func(t *testing.T) {
				hit := 0
				actual := mutated(t, func(function *ast.FuncDecl) bool {
					if !declares(function, name) {
						return true
					}
					hit++
					return mutate(function)
				})
				broken := Compare(frozen, actual)
				if hit != 1 || len(broken) != 1 || !strings.HasPrefix(broken[0], name+" ") {
					t.Fatalf("%d declarations were changed, and the check says %q", hit, broken)
				}
			})
		}
	}
}

func TestMoreExportedThingsAndOtherNamesOfParametersAreAllowed(t *testing.T) {
	actual := mutated(t, func(function *ast.FuncDecl) bool {
		if function.Name.Name == "Infer" {
			function.Name = ast.NewIdent("InferAll")
		}
		if function.Name.Name == "NewModelInferenceClient" {
			function.Type.Params.List[0].Names[0] = ast.NewIdent("target")
		}
		return true
	})
	if broken := Compare(frozenInterface(t), actual); broken != nil {
		t.Fatal(broken)
	}
	if _, found := actual["ModelInferenceClient.InferAll"]; !found {
		t.Fatal("the new method was not listed")
	}
}

func TestAPackageThatDoesNotCompileIsOneSentence(t *testing.T) {
	_, err := Compile("../..", client+"/none")
	if err == nil || !strings.Contains(err.Error(), "can't be compiled") {
		t.Fatalf("got %v", err)
	}
}

func TestAnEmptyFileIsRejected(t *testing.T) {
	for _, path := range []string{"none.json", "frozen_test.go"} {
		if read, err := Read(path); err == nil {
			t.Fatalf("%s was read as %v", path, read)
		}
	}
}
