package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const row = `{"model":"reliability_detector","features":[99.2,1.5,0.02,40,3.1,85]}` + "\n"

func TestRun(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, _ *http.Request) {
		_, _ = writer.Write([]byte(`{"predictions":[{"is_anomaly":true,"anomaly_score":0.30000001192092896}]}`))
	}))
	defer server.Close()
	for name, example := range map[string]struct {
		arguments    []string
		input        string
		status       int
		output, says string
	}{
		"a prediction":  {[]string{"-address", server.URL}, row, 0, `{"model":"reliability_detector","prediction":{"anomaly_score":0.3,"is_anomaly":true}}` + "\n", ""},
		"no prediction": {[]string{"-address", server.URL}, strings.Replace(row, ",85", "", 1), 1, `"error":"reliability_detector: instance 0 should hold 6 values, not 5"`, "1 of 1 rows"},
		"no rows":       {[]string{"-address", server.URL}, "", 0, "", ""},
		"no row":        {[]string{"-address", server.URL}, "x", 1, "", "line 1"},
		"no target":     {nil, row, 1, "", "either -address or -bundles"},
		"no bundles":    {[]string{"-bundles", "none"}, row, 1, "", "none"},
		"no workers":    {[]string{"-address", server.URL, "-workers", "0"}, row, 2, "", "above 0"},
		"no input":      {[]string{"-address", server.URL, "-input", "none"}, row, 1, "", "none"},
	} {
		t.Run(name, func(t *testing.T) {
			var output, stderr bytes.Buffer
			status := run(context.Background(), example.arguments, strings.NewReader(example.input), &output, &stderr)
			if status != example.status || !strings.Contains(output.String(), example.output) || !strings.Contains(stderr.String(), example.says) {
				t.Fatalf("exit status %d, output %s, stderr %s", status, &output, &stderr)
			}
		})
	}
}

func TestAFileIsWholeOrNotThere(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, _ *http.Request) {
		_, _ = writer.Write([]byte(`{"predictions":[{"is_anomaly":true,"anomaly_score":0.5}]}`))
	}))
	defer server.Close()
	directory := t.TempDir()
	path := filepath.Join(directory, "predictions.jsonl")
	for input, status := range map[string]int{row + "x": 1, row + row: 0} {
		_ = os.Remove(path)
		var stderr bytes.Buffer
		arguments := []string{"-address", server.URL, "-output", path}
		if got := run(context.Background(), arguments, strings.NewReader(input), nil, &stderr); got != status {
			t.Fatalf("exit status %d: %s", got, &stderr)
		}
		content, err := os.ReadFile(path)
		if status == 0 && strings.Count(string(content), "\n") != 2 || (status == 0) != (err == nil) {
			t.Fatalf("the file holds %q, %v", content, err)
		}
		if entries, _ := os.ReadDir(directory); len(entries) != 1-status {
			t.Fatalf("%d files are left", len(entries))
		}
	}
}
