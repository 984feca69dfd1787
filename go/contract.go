package dwcpml

import "slices"

// The full names of the four models: what the server, the bundles and
// [ModelInferenceClient.Infer] call them.
const (
	BandwidthPredictor  = "bandwidth_predictor"
	CompressionSelector = "compression_selector"
	ReliabilityDetector = "reliability_detector"
	ConsensusLatency    = "consensus_latency"
)

const (
	dtypeFloat32 = "float32"
	dtypeInt64   = "int64"
	dtypeBool    = "bool"
)

const (
	manifestName     = "manifest.json"
	onnxName         = "model.onnx"
	manifestSchema   = 1
	maxBundleBytes   = 50_000_000
	maxManifestBytes = 1 << 20
)

// tensorSpec is one input or output; shape is that of one instance, without the batch.
type tensorSpec struct {
	Name  string `json:"name"`
	Shape []int  `json:"shape"`
	DType string `json:"dtype"`
	// Limits are the least and greatest value of a whole number, nil for other dtypes.
	Limits []int64 `json:"limits"`
}

// size is the number of values in one instance; a scalar has one.
func (t tensorSpec) size() int {
	size := 1
	for _, length := range t.Shape {
		size *= length
	}
	return size
}

// formSpec is one form of a model's prediction: the default one, or its alternative.
type formSpec struct {
	Name    string       `json:"name"`
	Outputs []tensorSpec `json:"outputs"`
}

func (f formSpec) output(name string) (tensorSpec, bool) {
	at := slices.IndexFunc(f.Outputs, func(t tensorSpec) bool { return t.Name == name })
	if at < 0 {
		return tensorSpec{}, false
	}
	return f.Outputs[at], true
}

// modelSpec is the public signature of one model; the first form is the default.
type modelSpec struct {
	Name     string     `json:"name"`
	Features []string   `json:"features"`
	Window   int        `json:"window"`
	Input    tensorSpec `json:"input"`
	Forms    []formSpec `json:"forms"`
}

// formWith returns the form that has exactly the outputs in names.
func (m *modelSpec) formWith(has func(name string) bool, count int) (formSpec, bool) {
	for _, form := range m.Forms {
		missing := slices.ContainsFunc(form.Outputs, func(t tensorSpec) bool { return !has(t.Name) })
		if !missing && len(form.Outputs) == count {
			return form, true
		}
	}
	return formSpec{}, false
}

func features(shape ...int) tensorSpec {
	return tensorSpec{Name: "features", Shape: shape, DType: dtypeFloat32}
}

func number(name string) tensorSpec {
	return tensorSpec{Name: name, Shape: []int{}, DType: dtypeFloat32}
}

func flag(name string) tensorSpec {
	return tensorSpec{Name: name, Shape: []int{}, DType: dtypeBool}
}

// classes are the two outputs of a classifier: the class, and the probability of each.
func classes(name string, count int) []tensorSpec {
	return []tensorSpec{
		{Name: name, Shape: []int{}, DType: dtypeInt64, Limits: []int64{0, int64(count - 1)}},
		{Name: "probabilities", Shape: []int{count}, DType: dtypeFloat32},
	}
}

const (
	bandwidthSteps    = 10
	bandwidthFeatures = 7
)

// contract repeats dwcp_ml/contract/models.py; a test compares them.
var contract = []*modelSpec{
	{
		Name: BandwidthPredictor,
		Features: []string{
			"rtt_ms", "jitter_ms", "throughput_mbps", "packet_loss", "link_type_encoded",
			"network_tier_encoded", "congestion_window",
		},
		Window: bandwidthSteps,
		Input:  features(bandwidthSteps, bandwidthFeatures),
		Forms: []formSpec{
			{"next_throughput_mbps", []tensorSpec{number("next_throughput_mbps")}},
			{"bandwidth_class", classes("bandwidth_class", 3)},
		},
	},
	{
		Name: CompressionSelector,
		Features: []string{
			"throughput_mbps", "rtt_ms", "link_type_encoded", "hde_compression_ratio",
			"hde_delta_hit_rate", "amst_transfer_rate",
		},
		Window: 1,
		Input:  features(6),
		Forms: []formSpec{
			{"compression_level", classes("compression_level", 10)},
			{"compression_type", classes("compression_type", 3)},
		},
	},
	{
		Name: ReliabilityDetector,
		Features: []string{
			"uptime_pct", "failure_rate", "packet_loss", "retransmits",
			"error_budget_burn_rate", "rtt_ms",
		},
		Window: 1,
		Input:  features(6),
		Forms: []formSpec{
			{"anomaly", []tensorSpec{number("anomaly_score"), flag("is_anomaly")}},
		},
	},
	{
		Name:     ConsensusLatency,
		Features: []string{"consensus_latency_ms"},
		Window:   20,
		Input:    features(20),
		Forms: []formSpec{
			{"high_latency", []tensorSpec{number("reconstruction_error"), flag("is_high_latency")}},
		},
	},
}

// specOf returns the signature of the model with this full name.
func specOf(name string) (*modelSpec, error) {
	for _, spec := range contract {
		if spec.Name == name {
			return spec, nil
		}
	}
	return nil, invalid(name, "there is no model %q; the models are %s, %s, %s and %s",
		name, BandwidthPredictor, CompressionSelector, ReliabilityDetector, ConsensusLatency)
}
