package dwcpml

import (
	"context"
	"math"
	"strings"
)

// call is one question to one model: checked, and labelled.
type call struct {
	labels
	spec      *modelSpec
	instances [][]float64 // each of spec.Input.size() values
}

// oracle answers a call; it is a server, or the models in the process.
type oracle interface {
	ask(ctx context.Context, question *call) ([]Answer, error)
}

// predictions are the calls of [Models] on top of any oracle.
type predictions struct {
	oracle  oracle
	windows *windows
}

// PredictBandwidth implements [Models].
func (p *predictions) PredictBandwidth(ctx context.Context, features []float64) (float64, error) {
	spec, _ := specOf(BandwidthPredictor)
	if len(features) != bandwidthFeatures && len(features) != spec.Input.size() {
		return 0, invalid(spec.Name, "it takes %d values (one observation) or %d (a window of %d), not %d",
			bandwidthFeatures, spec.Input.size(), bandwidthSteps, len(features))
	}
	if err := checkFinite(spec, features); err != nil {
		return 0, err
	}
	said, err := labelsOf(ctx, spec.Name)
	if err != nil {
		return 0, err
	}
	if len(features) == bandwidthFeatures {
		features = p.windows.push(said.link, features, said.observedAt)
	}
	answers, err := p.oracle.ask(ctx, &call{labels: said, spec: spec, instances: [][]float64{features}})
	if err != nil {
		return 0, err
	}
	throughput, found := answers[0].Float("next_throughput_mbps")
	if !found {
		return 0, otherForm(spec, said, answers[0])
	}
	return float64(throughput), nil
}

// SelectCompression implements [Models].
func (p *predictions) SelectCompression(ctx context.Context, features []float64) (int, error) {
	answer, said, err := p.one(ctx, CompressionSelector, features)
	if err != nil {
		return 0, err
	}
	level, found := answer.Int("compression_level")
	if !found {
		spec, _ := specOf(CompressionSelector)
		return 0, otherForm(spec, said, answer)
	}
	return int(level), nil
}

// DetectAnomaly implements [Models].
func (p *predictions) DetectAnomaly(ctx context.Context, features []float64) (bool, float64, error) {
	answer, _, err := p.one(ctx, ReliabilityDetector, features)
	if err != nil {
		return false, 0, err
	}
	failing, _ := answer.Bool("is_anomaly")
	score, _ := answer.Float("anomaly_score")
	return failing, float64(score), nil
}

// DetectHighLatency implements [Models].
func (p *predictions) DetectHighLatency(ctx context.Context, sequence []float64) (bool, error) {
	answer, _, err := p.one(ctx, ConsensusLatency, sequence)
	if err != nil {
		return false, err
	}
	high, _ := answer.Bool("is_high_latency")
	return high, nil
}

// Infer asks one model about several instances in one request and returns all that it says of each,
// in order. model is a full name; an instance holds the model's whole input, row by row: 70 values
// for bandwidth_predictor (no kept window plays a part), 6, 6, and 20.
func (p *predictions) Infer(ctx context.Context, model string, instances [][]float64) ([]Answer, error) {
	spec, err := specOf(model)
	if err != nil {
		return nil, err
	}
	if len(instances) == 0 {
		return nil, invalid(model, "there is no instance to answer")
	}
	for at, instance := range instances {
		if len(instance) != spec.Input.size() {
			return nil, invalid(model, "instance %d should hold %d values, not %d", at, spec.Input.size(), len(instance))
		}
		if err := checkFinite(spec, instance); err != nil {
			return nil, err
		}
	}
	said, err := labelsOf(ctx, model)
	if err != nil {
		return nil, err
	}
	return p.oracle.ask(ctx, &call{labels: said, spec: spec, instances: instances})
}

// one asks about one instance of a model that keeps no window.
func (p *predictions) one(ctx context.Context, model string, features []float64) (Answer, labels, error) {
	spec, _ := specOf(model)
	if len(features) != spec.Input.size() {
		return nil, labels{}, invalid(model, "it takes %d values, not %d", spec.Input.size(), len(features))
	}
	if err := checkFinite(spec, features); err != nil {
		return nil, labels{}, err
	}
	said, err := labelsOf(ctx, model)
	if err != nil {
		return nil, said, err
	}
	answers, err := p.oracle.ask(ctx, &call{labels: said, spec: spec, instances: [][]float64{features}})
	if err != nil {
		return nil, said, err
	}
	return answers[0], said, nil
}

// checkFinite refuses what is not a finite float32, which is what the models read.
func checkFinite(spec *modelSpec, values []float64) error {
	for at, value := range values {
		if !finite(value) || math.IsInf(float64(float32(value)), 0) {
			name := spec.Features[at%len(spec.Features)]
			return invalid(spec.Name, "value %d (%s) should be a finite 32-bit number, not %v", at, name, value)
		}
	}
	return nil
}

// otherForm says that the model at the other end was trained for the other form of its answer.
func otherForm(spec *modelSpec, said labels, answer Answer) *Error {
	names := make([]string, 0, len(answer))
	for _, form := range spec.Forms {
		for _, output := range form.Outputs {
			if _, found := answer[output.Name]; found && form.Name != spec.Forms[0].Name {
				names = append(names, output.Name)
			}
		}
	}
	problem := badAnswer("this model answers %s, not %s; ask it with Infer",
		strings.Join(names, " and "), spec.Forms[0].Name)
	problem.Model, problem.RequestID = spec.Name, said.requestID
	return problem
}
