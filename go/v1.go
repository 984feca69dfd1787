package dwcpml

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// encodeInstances writes {"instances": […]} with the nesting of shape. Numbers keep all their digits.
func encodeInstances(shape []int, instances [][]float64) []byte {
	size := 16
	for _, instance := range instances {
		size += 16*len(instance) + 8
	}
	body := append(make([]byte, 0, size), `{"instances":[`...)
	for at, instance := range instances {
		if at > 0 {
			body = append(body, ',')
		}
		body = appendNested(body, shape, instance)
	}
	return append(body, "]}"...)
}

func appendNested(body []byte, shape []int, values []float64) []byte {
	if len(shape) == 0 {
		return strconv.AppendFloat(body, values[0], 'g', -1, 64)
	}
	body = append(body, '[')
	step := len(values) / shape[0]
	for at := range shape[0] {
		if at > 0 {
			body = append(body, ',')
		}
		body = appendNested(body, shape[1:], values[at*step:(at+1)*step])
	}
	return append(body, ']')
}

// decodePredictions reads {"predictions": […]}. A prediction is an object of the outputs' names or,
// from a SavedModel with one output in TensorFlow Serving, a number, perhaps in an array of one.
func decodePredictions(spec *modelSpec, body []byte, count int) ([]Prediction, *Error) {
	var reply struct {
		Predictions *[]json.RawMessage `json:"predictions"`
	}
	if err := json.Unmarshal(body, &reply); err != nil {
		return nil, badResponse("the response is not the JSON of predictions: %s", err)
	}
	if reply.Predictions == nil {
		return nil, badResponse("the response holds no predictions: %s", errorMessage(body))
	}
	if len(*reply.Predictions) != count {
		return nil, badResponse("the response holds %d predictions for %d instances", len(*reply.Predictions), count)
	}
	predictions := make([]Prediction, count)
	for at, encoded := range *reply.Predictions {
		var problem *Error
		if bytes.HasPrefix(encoded, []byte("{")) {
			predictions[at], problem = decodeNamed(spec, encoded)
		} else {
			predictions[at], problem = decodeNumber(spec, encoded)
		}
		if problem != nil {
			return nil, problem
		}
	}
	return predictions, nil
}

// decodeNamed reads a prediction that names its outputs.
func decodeNamed(spec *modelSpec, encoded json.RawMessage) (Prediction, *Error) {
	var named map[string]json.RawMessage
	if err := json.Unmarshal(encoded, &named); err != nil {
		return nil, badResponse("a prediction can't be read: %s", err)
	}
	has := func(name string) bool { _, found := named[name]; return found }
	form, found := spec.formWith(has, len(named))
	if !found {
		return nil, badResponse("a prediction holds other outputs than the contract's: %s", excerpt(encoded))
	}
	prediction := Prediction{}
	for _, output := range form.Outputs {
		if problem := decodeOutput(prediction, output, named[output.Name]); problem != nil {
			return nil, problem
		}
	}
	return prediction, nil
}

// decodeNumber reads a prediction without names, which only a model with one output can give.
func decodeNumber(spec *modelSpec, encoded json.RawMessage) (Prediction, *Error) {
	if inner := []json.RawMessage(nil); json.Unmarshal(encoded, &inner) == nil && len(inner) == 1 {
		encoded = inner[0]
	}
	for _, form := range spec.Forms {
		if len(form.Outputs) != 1 {
			continue
		}
		prediction := Prediction{}
		return prediction, decodeOutput(prediction, form.Outputs[0], encoded)
	}
	return nil, badResponse("a prediction should name its outputs: %s", excerpt(encoded))
}

func decodeOutput(prediction Prediction, output tensorSpec, text json.RawMessage) *Error {
	var (
		floats  []float32
		ints    []int64
		bools   []bool
		into    any
		isArray = len(output.Shape) > 0
	)
	switch output.DType {
	case dtypeInt64:
		into = &ints
	case dtypeBool:
		into = &bools
	default:
		into = &floats
	}
	if !isArray {
		text = bytes.Join([][]byte{{'['}, text, {']'}}, nil)
	}
	// Unmarshal takes null for "leave it as it is", which would read as zero.
	if bytes.Contains(text, []byte("null")) {
		return badResponse("%s should be %s, not null", output.Name, output.DType)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return badResponse("%s should be %s: %s", output.Name, output.DType, excerpt(text))
	}
	return prediction.put(output, floats, ints, bools)
}

// decodeReady reads the state of a model: {"ready": bool} of KServe, or the list of versions of
// TensorFlow Serving.
func decodeReady(body []byte) *Error {
	var reply struct {
		Ready    *bool `json:"ready"`
		Versions []struct {
			State string `json:"state"`
		} `json:"model_version_status"`
	}
	if err := json.Unmarshal(body, &reply); err != nil {
		return badResponse("the prediction is not the JSON of a model's state: %s", err)
	}
	if reply.Ready != nil && *reply.Ready {
		return nil
	}
	for _, version := range reply.Versions {
		if version.State == "AVAILABLE" {
			return nil
		}
	}
	if reply.Ready == nil && reply.Versions == nil {
		return badResponse("the prediction does not say whether the model is ready: %s", excerpt(body))
	}
	return &Error{kind: ErrNotReady, Message: "the model is not ready"}
}

// errorMessage returns what a body says is wrong: {"error": "…"}, or its first line.
func errorMessage(body []byte) string {
	var reply struct {
		Error  string `json:"error"`
		Detail string `json:"detail"`
	}
	if json.Unmarshal(body, &reply) == nil && reply.Error+reply.Detail != "" {
		return reply.Error + reply.Detail
	}
	return excerpt(body)
}

// excerpt returns the beginning of the first line of a text.
func excerpt(text []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	if len(line) > 120 {
		line = line[:120] + "…"
	}
	return strings.ToValidUTF8(line, "?")
}
