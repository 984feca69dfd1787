package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	t.Chdir("../..")
	broken := filepath.Join(t.TempDir(), "frozen.json")
	text := `{"ModelInferenceClient.Gone": "func()", "NewModelInferenceClient": "func()", "ModelInferenceClient.Close": "func() error"}`
	if err := os.WriteFile(broken, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, example := range map[string]struct {
		arguments []string
		status    int
		says      []string
	}{
		"unchanged":  {nil, 0, nil},
		"broken":     {[]string{"-frozen", broken}, 1, []string{"ModelInferenceClient.Gone is frozen and missing.", "NewModelInferenceClient is frozen as () and is (string)"}},
		"no file":    {[]string{"-frozen", "none.json"}, 2, []string{"can't be read"}},
		"no package": {[]string{"-package", "ml.dwcp.io/dwcpml/none"}, 1, []string{"can't be compiled"}},
		"no flag":    {[]string{"-none"}, 2, []string{"-none"}},
	} {
		t.Run(name, func(t *testing.T) {
			var output, stderr bytes.Buffer
			if status := run(example.arguments, &output, &stderr); status != example.status {
				t.Fatalf("the exit status is %d, want %d: %s", status, example.status, &stderr)
			}
			for _, words := range example.says {
				if !strings.Contains(stderr.String(), words) {
					t.Errorf("it says %q, not %q", stderr.String(), words)
				}
			}
			var printed map[string]string
			if example.status == 0 && (json.Unmarshal(output.Bytes(), &printed) != nil || printed["ModelInferenceClient.Close"] != "func() error") {
				t.Errorf("it printed %s", &output)
			}
		})
	}
}
