package predict

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"ml.dwcp.io/dwcpml"
)

// echo predicts for each instance its first value, after a moment, and counts what runs at once.
type echo struct {
	mutex             sync.Mutex
	now, most         int
	largest, requests int
}

func (e *echo) Infer(_ context.Context, model string, instances [][]float64) ([]dwcpml.Prediction, error) {
	e.mutex.Lock()
	e.now++
	e.requests++
	e.most, e.largest = max(e.most, e.now), max(e.largest, len(instances))
	e.mutex.Unlock()
	time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
	e.mutex.Lock()
	e.now--
	e.mutex.Unlock()
	if model == "bad" {
		return nil, errors.New("no such model")
	}
	predictions := make([]dwcpml.Prediction, len(instances))
	for at, instance := range instances {
		predictions[at] = dwcpml.Prediction{"value": float32(instance[0])}
	}
	return predictions, nil
}

func (e *echo) Close() error { return nil }

func rows(count int, model func(at int) string) string {
	var text strings.Builder
	for at := range count {
		fmt.Fprintf(&text, `{"model":%q,"features":[%d.1]}`+"\n", model(at), at)
	}
	return text.String()
}

func TestTheOrderOfTheRowsIsKept(t *testing.T) {
	for _, batch := range []int{1, 7} {
		var output bytes.Buffer
		models := &echo{}
		input := rows(1000, func(at int) string { return []string{"a", "b"}[at/100%2] })
		counts, err := Stream(context.Background(), models, strings.NewReader(input), &output, 8, batch)
		if err != nil || counts != (Counts{1000, 0}) {
			t.Fatalf("got %+v, %v", counts, err)
		}
		for at, line := range strings.Split(strings.TrimSpace(output.String()), "\n") {
			if want := fmt.Sprintf(`"prediction":{"value":%d.1}`, at); !strings.Contains(line, want) {
				t.Fatalf("line %d is %s, want %s", at, line, want)
			}
		}
		if models.most > 8 || models.largest != batch {
			t.Errorf("%d requests ran at once, the largest of %d rows", models.most, models.largest)
		}
	}
}

func TestARowWithoutAPredictionHasAnError(t *testing.T) {
	var output bytes.Buffer
	input := rows(3, func(at int) string { return []string{"good", "bad", "good"}[at] })
	counts, err := Stream(context.Background(), &echo{}, strings.NewReader(input), &output, 2, 10)
	if err != nil || counts != (Counts{3, 1}) {
		t.Fatalf("got %+v, %v", counts, err)
	}
	var line Line
	if err := json.Unmarshal([]byte(strings.Split(output.String(), "\n")[1]), &line); err != nil || line.Error != "no such model" {
		t.Fatalf("the second line is %+v, %v", line, err)
	}
}

func TestAnInvalidLineIsReportedWithItsNumber(t *testing.T) {
	for _, bad := range []string{"nonsense", `{"features":["x"]}`, "[]"} {
		input := rows(20, func(int) string { return "a" }) + bad + "\n" + rows(20, func(int) string { return "a" })
		_, err := Stream(context.Background(), &echo{}, strings.NewReader(input), &bytes.Buffer{}, 2, 3)
		if err == nil || !strings.Contains(err.Error(), "line 21") {
			t.Errorf("%s: got %v", bad, err)
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestAnOutputThatCannotBeWrittenStopsTheStream(t *testing.T) {
	models := &echo{}
	input := rows(100_000, func(int) string { return "a" })
	_, err := Stream(context.Background(), models, strings.NewReader(input), full{}, 4, 1)
	if err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Fatalf("got %v", err)
	}
	if models.requests > 10_000 {
		t.Errorf("%d rows were requested after the disk was full", models.requests)
	}
}
