// Command kstatus computes the kstatus of Kubernetes objects with the library that Flux uses. It
// reads a JSON list of objects from standard input and writes a JSON list of their statuses, in the
// same order, to standard output.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// result is the status of one object: Current, InProgress, Failed, Terminating or Unknown.
type result struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "kstatus: %v\n", err)
		os.Exit(1)
	}
}

func run(input io.Reader, output io.Writer) error {
	var documents []json.RawMessage
	if err := json.NewDecoder(input).Decode(&documents); err != nil {
		return fmt.Errorf("standard input is not a JSON list: %w", err)
	}
	results := make([]result, 0, len(documents))
	for number, document := range documents {
		object := &unstructured.Unstructured{} // decodes whole numbers as int64, as kstatus needs
		if err := object.UnmarshalJSON(document); err != nil {
			return fmt.Errorf("item %d is not a Kubernetes object: %w", number, err)
		}
		computed, err := status.Compute(object)
		if err != nil {
			return fmt.Errorf("item %d: %w", number, err)
		}
		results = append(results, result{string(computed.Status), computed.Message})
	}
	return json.NewEncoder(output).Encode(results)
}
