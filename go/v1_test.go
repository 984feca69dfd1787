package dwcpml

import (
	"context"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
)

func TestPredictionsOfTheServerAndOfTensorFlowServing(t *testing.T) {
	for _, example := range []struct {
		name, model, body string
		want              []Prediction
	}{
		{"named", BandwidthPredictor, `{"predictions":[{"next_throughput_mbps":1.5}]}`,
			[]Prediction{{"next_throughput_mbps": float32(1.5)}}},
		{"plain numbers", BandwidthPredictor, `{"predictions": [123.4, 5e2]}`,
			[]Prediction{{"next_throughput_mbps": float32(123.4)}, {"next_throughput_mbps": float32(500)}}},
		{"arrays of one", BandwidthPredictor, "{\n  \"predictions\": [[123.4]\n  ]\n}",
			[]Prediction{{"next_throughput_mbps": float32(123.4)}}},
		{"digits of a double", BandwidthPredictor, `{"predictions":[0.10000000149011612]}`,
			[]Prediction{{"next_throughput_mbps": float32(0.1)}}},
		{"the other form", BandwidthPredictor, `{"predictions":[{"bandwidth_class":2,"probabilities":[0,0.25,0.75]}]}`,
			[]Prediction{{"bandwidth_class": int64(2), "probabilities": []float32{0, 0.25, 0.75}}}},
		{"several outputs", ConsensusLatency, `{"predictions":[{"is_high_latency":false,"reconstruction_error":0.5}]}`,
			[]Prediction{{"is_high_latency": false, "reconstruction_error": float32(0.5)}}},
		{"other keys beside", BandwidthPredictor, `{"model":"x","predictions":[1]}`,
			[]Prediction{{"next_throughput_mbps": float32(1)}}},
	} {
		t.Run(example.name, func(t *testing.T) {
			spec, _ := specOf(example.model)
			got, problem := decodePredictions(spec, []byte(example.body), len(example.want))
			if problem != nil || !reflect.DeepEqual(got, example.want) {
				t.Fatalf("got %v, %v; want %v", got, problem, example.want)
			}
		})
	}
}

var badPredictions = map[string][2]string{
	"no JSON":                {BandwidthPredictor, `<html>`},
	"an error with 200":      {BandwidthPredictor, `{"error":"boom"}`},
	"null":                   {BandwidthPredictor, `{"predictions":null}`},
	"none":                   {BandwidthPredictor, `{"predictions":[]}`},
	"one too many":           {BandwidthPredictor, `{"predictions":[1,2]}`},
	"null for a number":      {BandwidthPredictor, `{"predictions":[null]}`},
	"null in a name":         {BandwidthPredictor, `{"predictions":[{"next_throughput_mbps":null}]}`},
	"text":                   {BandwidthPredictor, `{"predictions":["1"]}`},
	"NaN":                    {BandwidthPredictor, `{"predictions":[NaN]}`},
	"over float32":           {BandwidthPredictor, `{"predictions":[1e300]}`},
	"two numbers":            {BandwidthPredictor, `{"predictions":[[1,2]]}`},
	"no number":              {BandwidthPredictor, `{"predictions":[[]]}`},
	"another name":           {BandwidthPredictor, `{"predictions":[{"y":1}]}`},
	"a name too many":        {BandwidthPredictor, `{"predictions":[{"next_throughput_mbps":1,"y":1}]}`},
	"a plain class":          {CompressionSelector, `{"predictions":[3]}`},
	"a level over 9":         {CompressionSelector, `{"predictions":[{"compression_level":10,"probabilities":[0,0,0,0,0,0,0,0,0,1]}]}`},
	"a level below 0":        {CompressionSelector, `{"predictions":[{"compression_level":-1,"probabilities":[0,0,0,0,0,0,0,0,0,1]}]}`},
	"half a level":           {CompressionSelector, `{"predictions":[{"compression_level":1.5,"probabilities":[0,0,0,0,0,0,0,0,0,1]}]}`},
	"nine probabilities":     {CompressionSelector, `{"predictions":[{"compression_level":1,"probabilities":[0,0,0,0,0,0,0,0,1]}]}`},
	"a null probability":     {CompressionSelector, `{"predictions":[{"compression_level":1,"probabilities":[null,0,0,0,0,0,0,0,0,1]}]}`},
	"a number for a flag":    {ReliabilityDetector, `{"predictions":[{"anomaly_score":0.1,"is_anomaly":1}]}`},
	"a flag that is missing": {ReliabilityDetector, `{"predictions":[{"anomaly_score":0.1}]}`},
}

func TestPredictionsThatBreakTheContractAreBadResponses(t *testing.T) {
	for name, example := range badPredictions {
		t.Run(name, func(t *testing.T) {
			spec, _ := specOf(example[0])
			got, problem := decodePredictions(spec, []byte(example[1]), 1)
			if problem == nil {
				t.Fatalf("it was read as %v", got)
			}
			wantError(t, problem, ErrBadResponse)
		})
	}
}

func TestTheOtherFormOfAModelIsNotTakenForTheDefaultOne(t *testing.T) {
	types := newScriptedHTTP(t, ok(`{"predictions":[{"compression_type":2,"probabilities":[0,0,1]}]}`))
	_, err := dial(t, types.URL).SelectCompression(context.Background(), make([]float64, 6))
	wantError(t, err, ErrBadResponse, "compression_type", "Infer")
	class := newScriptedHTTP(t, ok(`{"predictions":[{"bandwidth_class":2,"probabilities":[0,0,1]}]}`))
	_, err = dial(t, class.URL).PredictBandwidth(context.Background(), observation(1))
	wantError(t, err, ErrBadResponse, "bandwidth_class")
}

func TestErrorsOfTensorFlowServingAndOfProxies(t *testing.T) {
	for body, want := range map[string]string{
		`{ "error": "Servable not found for request: Latest(x)" }`: "Servable not found for request: Latest(x)",
		`{"detail":"Not Found"}`:                                   "Not Found",
		"upstream connect error\nmore of it":                       "upstream connect error",
		"":                                                         "",
	} {
		if got := errorMessage([]byte(body)); got != want {
			t.Errorf("%q says %q, want %q", body, got, want)
		}
	}
	if problem := rejection(404, "", "", ""); problem.Message != "not found" {
		t.Errorf("an empty prediction says %q", problem.Message)
	}
	if problem := rejection(400, strings.Repeat("x", 9999), "", ""); len(problem.Message) > maxMessageLength+4 {
		t.Errorf("a long message has %d bytes", len(problem.Message))
	}
}

func TestNumbersOfARequestAreExact(t *testing.T) {
	values := []float64{0.1, 1e-300, -0.0, math.MaxFloat32, 1.0 / 3, 65536}
	var read struct {
		Instances [][][]float64 `json:"instances"`
	}
	if err := json.Unmarshal(encodeInstances([]int{2, 3}, [][]float64{values, values}), &read); err != nil {
		t.Fatal(err)
	}
	want := [][]float64{values[:3], values[3:]}
	if !reflect.DeepEqual(read.Instances, [][][]float64{want, want}) {
		t.Fatalf("got %v, want %v twice", read.Instances, want)
	}
}

func TestThePredictionAsJSONKeepsEachFloat32(t *testing.T) {
	written, err := json.Marshal(Prediction{"b": float32(0.1), "a": []float32{1, 1e-7}, "i": int64(3), "f": true})
	if want := `{"a":[1,1e-7],"b":0.1,"f":true,"i":3}`; err != nil || string(written) != want {
		t.Fatalf("got %s, %v; want %s", written, err, want)
	}
}

func FuzzDecodePredictions(f *testing.F) {
	for _, example := range badPredictions {
		f.Add(example[0], []byte(example[1]), 1)
	}
	f.Add(BandwidthPredictor, []byte(bandwidthAnswer), 1)
	f.Add(BandwidthPredictor, []byte(`{"predictions":[[123.4],[5]]}`), 2)
	f.Add(CompressionSelector, []byte(`{"predictions":[{"compression_level":1,"probabilities":[0,0,0,0,0,0,0,0,0,1]}]}`), 1)
	f.Fuzz(func(t *testing.T, model string, body []byte, count int) {
		spec, err := specOf(model)
		if err != nil || count < 0 || count > 100 {
			t.Skip("no such model, or too many instances")
		}
		predictions, problem := decodePredictions(spec, body, count)
		if problem != nil {
			return
		}
		if len(predictions) != count {
			t.Fatalf("%d predictions for %d instances", len(predictions), count)
		}
		for _, prediction := range predictions {
			has := func(name string) bool { _, found := prediction[name]; return found }
			if _, found := spec.formWith(has, len(prediction)); !found {
				t.Fatalf("a prediction is no form of the model: %v", prediction)
			}
			if _, err := json.Marshal(prediction); err != nil {
				t.Fatal(err)
			}
		}
	})
}
