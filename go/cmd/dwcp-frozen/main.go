// Dwcp-frozen prints the exported functions and methods of the compiled client as JSON, and compares
// them with the frozen interface: exit status 1, and one sentence for each signature that is gone or
// changed. Run it in the module's directory.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"

	"ml.dwcp.io/dwcpml/internal/frozen"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(arguments []string, output, stderr io.Writer) int {
	flags := flag.NewFlagSet("dwcp-frozen", flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("package", "ml.dwcp.io/dwcpml", "import `path` of the package")
	file := flags.String("frozen", "frozen.json", "`file` of the frozen interface")
	if err := flags.Parse(arguments); err != nil {
		return 2
	}
	want, err := frozen.Read(*file)
	if err != nil {
		fmt.Fprintf(stderr, "%s.\n", err)
		return 2
	}
	compiled, err := frozen.Compile(".", *path)
	if err != nil {
		fmt.Fprintf(stderr, "%s.\n", err)
		return 1
	}
	loaded, err := compiled.Package(*path)
	if err != nil {
		fmt.Fprintf(stderr, "%s.\n", err)
		return 1
	}
	actual := frozen.Of(loaded)
	encoder := json.NewEncoder(output)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(actual); err != nil {
		fmt.Fprintf(stderr, "%s.\n", err)
		return 1
	}
	broken := frozen.Compare(want, actual)
	for _, sentence := range broken {
		fmt.Fprintln(stderr, sentence)
	}
	if len(broken) > 0 {
		return 1
	}
	return 0
}
