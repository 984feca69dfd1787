package dwcpml

import (
	"context"
	"math"
	"strings"
)

// modelCall is one checked request to one model.
type modelCall struct {
	callLabels
	spec      *modelSpec
	instances [][]float64 // each of spec.Input.size() values
	version   string      // of the model that predicted, from the response; empty if it says none
}

// backend runs a call: on a server, or on the models in the process.
type backend interface {
	infer(ctx context.Context, call *modelCall) ([]Prediction, error)
}

// predictor implements the calls of [Models] on top of a backend.
type predictor struct {
	backend backend
	windows *windows
}

// PredictBandwidth implements [Models].
func (p *predictor) PredictBandwidth(ctx context.Context, features []float64) (float64, error) {
	spec, _ := specOf(BandwidthPredictor)
	if len(features) != bandwidthFeatures && len(features) != spec.Input.size() {
		return 0, invalid(spec.Name, "it takes %d values (one observation) or %d (a window of %d), not %d",
			bandwidthFeatures, spec.Input.size(), bandwidthSteps, len(features))
	}
	if err := checkFinite(spec, features); err != nil {
		return 0, err
	}
	labels, err := labelsOf(ctx, spec.Name)
	if err != nil {
		return 0, err
	}
	if len(features) == bandwidthFeatures {
		features = p.windows.push(labels.link, features, labels.observedAt)
	}
	predictions, err := p.backend.infer(ctx, &modelCall{callLabels: labels, spec: spec, instances: [][]float64{features}})
	if err != nil {
		return 0, err
	}
	throughput, found := predictions[0].Float("next_throughput_mbps")
	if !found {
		return 0, otherFormError(spec, labels, predictions[0])
	}
	return float64(throughput), nil
}

// SelectCompression implements [Models].
func (p *predictor) SelectCompression(ctx context.Context, features []float64) (int, error) {
	prediction, labels, err := p.predictOne(ctx, CompressionSelector, features)
	if err != nil {
		return 0, err
	}
	level, found := prediction.Int("compression_level")
	if !found {
		spec, _ := specOf(CompressionSelector)
		return 0, otherFormError(spec, labels, prediction)
	}
	return int(level), nil
}

// DetectAnomaly implements [Models].
func (p *predictor) DetectAnomaly(ctx context.Context, features []float64) (bool, float64, error) {
	prediction, _, err := p.predictOne(ctx, ReliabilityDetector, features)
	if err != nil {
		return false, 0, err
	}
	failing, _ := prediction.Bool("is_anomaly")
	score, _ := prediction.Float("anomaly_score")
	return failing, float64(score), nil
}

// DetectHighLatency implements [Models].
func (p *predictor) DetectHighLatency(ctx context.Context, sequence []float64) (bool, error) {
	prediction, _, err := p.predictOne(ctx, ConsensusLatency, sequence)
	if err != nil {
		return false, err
	}
	high, _ := prediction.Bool("is_high_latency")
	return high, nil
}

// Infer sends several instances to one model in one request and returns all outputs of each, in
// order. model is a full name; an instance holds the model's whole input, row by row: 70 values
// for bandwidth_predictor (the stored windows are not used), 6, 6, and 20.
func (p *predictor) Infer(ctx context.Context, model string, instances [][]float64) ([]Prediction, error) {
	spec, err := specOf(model)
	if err != nil {
		return nil, err
	}
	if len(instances) == 0 {
		return nil, invalid(model, "there are no instances")
	}
	for at, instance := range instances {
		if len(instance) != spec.Input.size() {
			return nil, invalid(model, "instance %d should hold %d values, not %d", at, spec.Input.size(), len(instance))
		}
		if err := checkFinite(spec, instance); err != nil {
			return nil, err
		}
	}
	labels, err := labelsOf(ctx, model)
	if err != nil {
		return nil, err
	}
	return p.backend.infer(ctx, &modelCall{callLabels: labels, spec: spec, instances: instances})
}

// predictOne sends one instance to a model without a window.
func (p *predictor) predictOne(ctx context.Context, model string, features []float64) (Prediction, callLabels, error) {
	spec, _ := specOf(model)
	if len(features) != spec.Input.size() {
		return nil, callLabels{}, invalid(model, "it takes %d values, not %d", spec.Input.size(), len(features))
	}
	if err := checkFinite(spec, features); err != nil {
		return nil, callLabels{}, err
	}
	labels, err := labelsOf(ctx, model)
	if err != nil {
		return nil, labels, err
	}
	predictions, err := p.backend.infer(ctx, &modelCall{callLabels: labels, spec: spec, instances: [][]float64{features}})
	if err != nil {
		return nil, labels, err
	}
	return predictions[0], labels, nil
}

// checkFinite rejects values that are not finite as float32, the type of the models' inputs.
func checkFinite(spec *modelSpec, values []float64) error {
	for at, value := range values {
		if !finite(value) || math.IsInf(float64(float32(value)), 0) {
			name := spec.Features[at%len(spec.Features)]
			return invalid(spec.Name, "value %d (%s) should be a finite 32-bit number, not %v", at, name, value)
		}
	}
	return nil
}

// otherFormError returns the error of a model that was trained for its alternative outputs.
func otherFormError(spec *modelSpec, labels callLabels, prediction Prediction) *Error {
	names := make([]string, 0, len(prediction))
	for _, form := range spec.Forms {
		for _, output := range form.Outputs {
			if _, found := prediction[output.Name]; found && form.Name != spec.Forms[0].Name {
				names = append(names, output.Name)
			}
		}
	}
	problem := badResponse("this model returns %s, not %s; call Infer for it",
		strings.Join(names, " and "), spec.Forms[0].Name)
	problem.Model, problem.RequestID = spec.Name, labels.requestID
	return problem
}
