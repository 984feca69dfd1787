package dwcpml

import "math"

// Prediction is all outputs of a model for one instance, by the names of the contract. A value is a
// float32, an int64, a bool, or a []float32 (the probabilities of a classifier). Its JSON holds
// each float32 in the fewest digits that read back as the same float32.
type Prediction map[string]any

// Float returns the number called name.
func (p Prediction) Float(name string) (float32, bool) {
	value, found := p[name].(float32)
	return value, found
}

// Floats returns the numbers called name.
func (p Prediction) Floats(name string) ([]float32, bool) {
	values, found := p[name].([]float32)
	return values, found
}

// Int returns the whole number called name.
func (p Prediction) Int(name string) (int64, bool) {
	value, found := p[name].(int64)
	return value, found
}

// Bool returns the flag called name.
func (p Prediction) Bool(name string) (value, found bool) {
	value, found = p[name].(bool)
	return value, found
}

// put adds one output of one instance; exactly the slice of the output's dtype is given.
func (p Prediction) put(output tensorSpec, floats []float32, ints []int64, bools []bool) *Error {
	if len(floats)+len(ints)+len(bools) != output.size() {
		return badResponse("%s of an instance should hold %d values, not %d",
			output.Name, output.size(), len(floats)+len(ints)+len(bools))
	}
	switch output.DType {
	case dtypeInt64:
		if ints[0] < output.Limits[0] || ints[0] > output.Limits[1] {
			return badResponse("%s should lie within %d and %d, not be %d",
				output.Name, output.Limits[0], output.Limits[1], ints[0])
		}
		p[output.Name] = ints[0]
	case dtypeBool:
		p[output.Name] = bools[0]
	default:
		for _, value := range floats {
			if !finite(float64(value)) {
				return badResponse("%s should be a finite number, not %v", output.Name, value)
			}
		}
		if len(output.Shape) == 0 {
			p[output.Name] = floats[0]
		} else {
			p[output.Name] = floats
		}
	}
	return nil
}

func finite(value float64) bool {
	return !math.IsNaN(value) && !math.IsInf(value, 0)
}
