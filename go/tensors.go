package dwcpml

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"

	"ml.dwcp.io/dwcpml/internal/inference"
)

// packFloats writes instances as little-endian float32, row by row.
func packFloats(instances [][]float64) []byte {
	packed := make([]byte, 0, 4*len(instances)*len(instances[0]))
	for _, instance := range instances {
		for _, value := range instance {
			packed = binary.LittleEndian.AppendUint32(packed, math.Float32bits(float32(value)))
		}
	}
	return packed
}

// dtypeNames are the protocol's names of the contract's dtypes.
var dtypeNames = map[string]string{dtypeFloat32: "FP32", dtypeInt64: "INT64", dtypeBool: "BOOL"}

// decodeTensors reads the outputs of a V2 response, raw or as contents, in any order.
func decodeTensors(spec *modelSpec, response *inference.ModelInferResponse, count int) ([]Prediction, *Error) {
	outputs := response.GetOutputs()
	byName := map[string]int{}
	for at, output := range outputs {
		byName[output.GetName()] = at
	}
	has := func(name string) bool { _, found := byName[name]; return found }
	form, found := spec.formWith(has, len(outputs))
	if !found {
		return nil, badResponse("the response holds other outputs than the contract's: %v", slices.Sorted(maps.Keys(byName)))
	}
	raw := response.GetRawOutputContents()
	if len(raw) != 0 && len(raw) != len(outputs) {
		return nil, badResponse("the response holds %d raw contents for %d outputs", len(raw), len(outputs))
	}
	predictions := make([]Prediction, count)
	for at := range predictions {
		predictions[at] = Prediction{}
	}
	for _, output := range form.Outputs {
		at := byName[output.Name]
		var block []byte
		if len(raw) != 0 {
			block = raw[at]
		}
		if problem := spread(predictions, output, outputs[at], block); problem != nil {
			return nil, problem
		}
	}
	return predictions, nil
}

// spread adds one output to the predictions.
func spread(
	predictions []Prediction, output tensorSpec, tensor *inference.ModelInferResponse_InferOutputTensor, raw []byte,
) *Error {
	if tensor.GetDatatype() != dtypeNames[output.DType] {
		return badResponse("%s should be %s, not %s", output.Name, dtypeNames[output.DType], excerpt([]byte(tensor.GetDatatype())))
	}
	// A server may return a scalar output with the shape (n) or (n, 1).
	total := int64(1)
	for _, length := range tensor.GetShape() {
		if length < 0 || length > math.MaxInt32 || total > math.MaxInt32 {
			return badResponse("%s has the shape %v", output.Name, tensor.GetShape())
		}
		total *= length
	}
	size := output.size()
	if len(tensor.GetShape()) == 0 || tensor.GetShape()[0] != int64(len(predictions)) || total != int64(len(predictions)*size) {
		return badResponse("%s has the shape %v for %d instances", output.Name, tensor.GetShape(), len(predictions))
	}
	contents := tensor.GetContents()
	floats, ints, bools := contents.GetFp32Contents(), contents.GetInt64Contents(), contents.GetBoolContents()
	if raw != nil {
		var problem *Error
		if floats, ints, bools, problem = unpack(output, raw); problem != nil {
			return problem
		}
	}
	return distribute(predictions, output, floats, ints, bools)
}

// distribute adds one output to the predictions, from the slice of its dtype.
func distribute(predictions []Prediction, output tensorSpec, floats []float32, ints []int64, bools []bool) *Error {
	size := output.size()
	held := map[string]int{dtypeFloat32: len(floats), dtypeInt64: len(ints), dtypeBool: len(bools)}[output.DType]
	if held != len(predictions)*size || len(floats)+len(ints)+len(bools) != held {
		return badResponse("%s should hold %d values of %s", output.Name, len(predictions)*size, output.DType)
	}
	for at, prediction := range predictions {
		problem := prediction.put(output, part(floats, at, size), part(ints, at, size), part(bools, at, size))
		if problem != nil {
			return problem
		}
	}
	return nil
}

func part[T any](values []T, at, size int) []T {
	if len(values) == 0 {
		return nil
	}
	return values[at*size : (at+1)*size : (at+1)*size]
}

// unpack reads the little-endian bytes of one output.
func unpack(output tensorSpec, raw []byte) (floats []float32, ints []int64, bools []bool, problem *Error) {
	width := map[string]int{dtypeFloat32: 4, dtypeInt64: 8, dtypeBool: 1}[output.DType]
	if len(raw)%width != 0 {
		return nil, nil, nil, badResponse("%s has %d raw bytes, not a multiple of %d", output.Name, len(raw), width)
	}
	for at := 0; at < len(raw); at += width {
		switch output.DType {
		case dtypeFloat32:
			floats = append(floats, math.Float32frombits(binary.LittleEndian.Uint32(raw[at:])))
		case dtypeInt64:
			ints = append(ints, int64(binary.LittleEndian.Uint64(raw[at:])))
		default:
			bools = append(bools, raw[at] != 0)
		}
	}
	return floats, ints, bools, nil
}
