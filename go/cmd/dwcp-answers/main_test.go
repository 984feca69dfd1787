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
		"an answer":  {[]string{"-address", server.URL}, row, 0, `{"model":"reliability_detector","answer":{"anomaly_score":0.3,"is_anomaly":true}}` + "\n", ""},
		"no answer":  {[]string{"-address", server.URL}, strings.Replace(row, ",85", "", 1), 1, `"error":"reliability_detector: instance 0 should hold 6 values, not 5"`, "1 of 1 rows"},
		"no rows":    {[]string{"-address", server.URL}, "", 0, "", ""},
		"no row":     {[]string{"-address", server.URL}, "x", 1, "", "line 1"},
		"no target":  {nil, row, 1, "", "either -address or -bundles"},
		"no bundles": {[]string{"-bundles", "none"}, row, 1, "", "none"},
		"no workers": {[]string{"-address", server.URL, "-workers", "0"}, row, 2, "", "above 0"},
		"no input":   {[]string{"-address", server.URL, "-input", "none"}, row, 1, "", "none"},
	} {
		t.Run(name, func(t *testing.T) {
			var output, complaints bytes.Buffer
			status := run(context.Background(), example.arguments, strings.NewReader(example.input), &output, &complaints)
			if status != example.status || !strings.Contains(output.String(), example.output) || !strings.Contains(complaints.String(), example.says) {
				t.Fatalf("exit status %d, output %s, complaints %s", status, &output, &complaints)
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
	path := filepath.Join(directory, "answers.jsonl")
	for input, status := range map[string]int{row + "x": 1, row + row: 0} {
		_ = os.Remove(path)
		var complaints bytes.Buffer
		arguments := []string{"-address", server.URL, "-output", path}
		if got := run(context.Background(), arguments, strings.NewReader(input), nil, &complaints); got != status {
			t.Fatalf("exit status %d: %s", got, &complaints)
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
