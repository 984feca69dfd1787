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
func decodePredictions(spec *modelSpec, body []byte, count int) ([]Answer, *Error) {
	var reply struct {
		Predictions *[]json.RawMessage `json:"predictions"`
	}
	if err := json.Unmarshal(body, &reply); err != nil {
		return nil, badAnswer("the answer is not the JSON of predictions: %s", err)
	}
	if reply.Predictions == nil {
		return nil, badAnswer("the answer holds no predictions: %s", errorMessage(body))
	}
	if len(*reply.Predictions) != count {
		return nil, badAnswer("the answer holds %d predictions for %d instances", len(*reply.Predictions), count)
	}
	answers := make([]Answer, count)
	for at, prediction := range *reply.Predictions {
		var problem *Error
		if bytes.HasPrefix(prediction, []byte("{")) {
			answers[at], problem = decodeNamed(spec, prediction)
		} else {
			answers[at], problem = decodeNumber(spec, prediction)
		}
		if problem != nil {
			return nil, problem
		}
	}
	return answers, nil
}

// decodeNamed reads a prediction that names its outputs.
func decodeNamed(spec *modelSpec, prediction json.RawMessage) (Answer, *Error) {
	var named map[string]json.RawMessage
	if err := json.Unmarshal(prediction, &named); err != nil {
		return nil, badAnswer("a prediction can't be read: %s", err)
	}
	has := func(name string) bool { _, found := named[name]; return found }
	form, found := spec.formWith(has, len(named))
	if !found {
		return nil, badAnswer("a prediction holds other outputs than the contract's: %s", excerpt(prediction))
	}
	answer := Answer{}
	for _, output := range form.Outputs {
		if problem := decodeOutput(answer, output, named[output.Name]); problem != nil {
			return nil, problem
		}
	}
	return answer, nil
}

// decodeNumber reads a prediction without names, which only a model with one output can give.
func decodeNumber(spec *modelSpec, prediction json.RawMessage) (Answer, *Error) {
	if inner := []json.RawMessage(nil); json.Unmarshal(prediction, &inner) == nil && len(inner) == 1 {
		prediction = inner[0]
	}
	for _, form := range spec.Forms {
		if len(form.Outputs) != 1 {
			continue
		}
		answer := Answer{}
		return answer, decodeOutput(answer, form.Outputs[0], prediction)
	}
	return nil, badAnswer("a prediction should name its outputs: %s", excerpt(prediction))
}

func decodeOutput(answer Answer, output tensorSpec, text json.RawMessage) *Error {
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
		return badAnswer("%s should be %s, not null", output.Name, output.DType)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return badAnswer("%s should be %s: %s", output.Name, output.DType, excerpt(text))
	}
	return answer.put(output, floats, ints, bools)
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
		return badAnswer("the answer is not the JSON of a model's state: %s", err)
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
		return badAnswer("the answer does not say whether the model is ready: %s", excerpt(body))
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
