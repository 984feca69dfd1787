package dwcpml

import (
	"encoding/json"
	"os"
	"reflect"
	"testing"
)

func TestTheContractIsTheOneOfThePythonPackage(t *testing.T) {
	text, err := os.ReadFile("testdata/contract.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Models []*modelSpec `json:"models"`
		Bundle struct {
			Manifest      string `json:"manifest"`
			Onnx          string `json:"onnx"`
			MaxFileBytes  int    `json:"max_file_bytes"`
			SchemaVersion int    `json:"schema_version"`
		} `json:"bundle"`
	}
	if err := json.Unmarshal(text, &golden); err != nil {
		t.Fatal(err)
	}
	if len(golden.Models) != len(contract) {
		t.Fatalf("the contract has %d models, the client %d", len(golden.Models), len(contract))
	}
	for at, want := range golden.Models {
		if !reflect.DeepEqual(contract[at], want) {
			t.Errorf("the client says %+v, the contract %+v", *contract[at], *want)
		}
	}
	bundle := golden.Bundle
	if bundle.Manifest != manifestName || bundle.Onnx != onnxName ||
		bundle.MaxFileBytes != maxBundleBytes || bundle.SchemaVersion != manifestSchema {
		t.Errorf("the client's words for a bundle are not %+v", bundle)
	}
}
