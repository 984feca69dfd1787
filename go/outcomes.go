package dwcpml

import (
	"container/list"
	"context"
	"math"
	"sync"
	"time"
)

// OutcomeReporter tells the servers what came true of a prediction, so that a rollout can compare the
// versions of a model by their losses.
type OutcomeReporter interface {
	// ReportOutcome reports what came true of the call whose context had [WithRequestID] with this
	// id: the throughput in Mbit/s, the level that would have been best, or 1 or 0 for whether the
	// node failed or latency was high. Any server counts it, for the version that predicted. The
	// call is forgotten when it was reported, and after a while: see [WithOutcomes].
	ReportOutcome(ctx context.Context, requestID string, outcome float64) error
}

var _ OutcomeReporter = (*ModelInferenceClient)(nil)

// compared names the output of each model whose outcome can be reported.
var compared = map[string]string{
	BandwidthPredictor:  "next_throughput_mbps",
	CompressionSelector: "compression_level",
	ReliabilityDetector: "is_anomaly",
	ConsensusLatency:    "is_high_latency",
}

// ReportOutcome implements [OutcomeReporter].
func (c *ModelInferenceClient) ReportOutcome(ctx context.Context, requestID string, outcome float64) error {
	made, found := c.remote.made.get(requestID)
	if !found {
		return invalid("", "there is no prediction with the request id %q, or it was too long ago, or its outcome was reported", requestID)
	}
	value, valid := typed(made.prediction, outcome)
	if !valid {
		return invalid(made.spec.Name, "%v can't be an outcome of %s", outcome, compared[made.spec.Name])
	}
	labels, err := labelsOf(ctx, made.spec.Name)
	if err != nil {
		return err
	}
	call := &modelCall{callLabels: labels, spec: made.spec}
	report := &outcomeReport{requestID, value, made.prediction, made.version}
	err = c.remote.try(ctx, call, func(ctx context.Context) *Error {
		return c.remote.transport.report(ctx, call, report)
	})
	if err == nil {
		c.remote.made.forget(requestID)
	}
	return err
}

// outcomeReport is what came true of one call; prediction and outcome have the type of the output.
type outcomeReport struct {
	ID         string `json:"id"`
	Outcome    any    `json:"outcome"`
	Prediction any    `json:"prediction"`
	Version    string `json:"version"`
}

// toFloat returns the value of an output; true is 1.
func toFloat(value any) float64 {
	switch value := value.(type) {
	case bool:
		if value {
			return 1
		}
		return 0
	case int64:
		return float64(value)
	case float32:
		return float64(value)
	case float64:
		return value
	default:
		return math.NaN() // the server rejects it
	}
}

// typed returns the outcome in the type of the prediction, and whether it can be one.
func typed(prediction any, outcome float64) (any, bool) {
	switch prediction.(type) {
	case bool:
		return outcome == 1, outcome == 0 || outcome == 1
	case int64:
		return int64(outcome), outcome == math.Trunc(outcome) && math.Abs(outcome) < 1<<31
	default:
		return outcome, finite(outcome)
	}
}

// madePrediction is what a report needs of a call.
type madePrediction struct {
	id         string
	spec       *modelSpec
	version    string
	prediction any
	at         time.Time
}

// memory keeps the newest predictions of named calls, the newest at the back.
type memory struct {
	most  int
	age   time.Duration
	now   func() time.Time
	mutex sync.Mutex
	order *list.List
	byID  map[string]*list.Element
}

func newMemory(most int, age time.Duration) *memory {
	return &memory{most: most, age: age, now: time.Now, order: list.New(), byID: map[string]*list.Element{}}
}

func (m *memory) put(call *modelCall, prediction Prediction) {
	value, found := prediction[compared[call.spec.Name]]
	if !found {
		return // the model's other form
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.remove(m.byID[call.requestID])
	now := m.now()
	for oldest := m.order.Front(); oldest != nil; oldest = m.order.Front() {
		if m.order.Len() < m.most && now.Sub(oldest.Value.(*madePrediction).at) <= m.age {
			break
		}
		m.remove(oldest)
	}
	made := &madePrediction{call.requestID, call.spec, call.version, value, now}
	m.byID[call.requestID] = m.order.PushBack(made)
}

func (m *memory) get(id string) (*madePrediction, bool) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	element, found := m.byID[id]
	if !found {
		return nil, false
	}
	made := element.Value.(*madePrediction)
	return made, m.now().Sub(made.at) <= m.age
}

func (m *memory) forget(id string) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.remove(m.byID[id])
}

// remove drops an element; the lock is held.
func (m *memory) remove(element *list.Element) {
	if element == nil {
		return
	}
	delete(m.byID, element.Value.(*madePrediction).id)
	m.order.Remove(element)
}
