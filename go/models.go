package dwcpml

import "context"

// Models are the four calls. Their signatures are frozen: a check compares them with frozen.json.
type Models interface {
	// PredictBandwidth returns the throughput of a link one step ahead, in Mbit/s. It takes 7
	// values, one observation, which joins the rolling window of the link that [WithLink] names; or
	// 70, a window of 10 steps, oldest first and row by row, which leaves the stored window unchanged.
	// The order is rtt_ms, jitter_ms, throughput_mbps, packet_loss (fraction), link_type_encoded,
	// network_tier_encoded, congestion_window (bytes).
	PredictBandwidth(ctx context.Context, features []float64) (float64, error)

	// SelectCompression returns the compression level, 0 to 9. It takes 6 values:
	// throughput_mbps, rtt_ms, link_type_encoded, hde_compression_ratio, hde_delta_hit_rate,
	// amst_transfer_rate (Mbit/s).
	SelectCompression(ctx context.Context, features []float64) (int, error)

	// DetectAnomaly returns whether a node is failing, and the score, from 0 (normal) to 1. It
	// takes 6 values: uptime_pct, failure_rate (an hour), packet_loss (fraction), retransmits,
	// error_budget_burn_rate, rtt_ms.
	DetectAnomaly(ctx context.Context, features []float64) (bool, float64, error)

	// DetectHighLatency returns whether consensus is in a high-latency episode. It takes the last
	// 20 values of consensus_latency_ms, oldest first.
	DetectHighLatency(ctx context.Context, sequence []float64) (bool, error)

	// Close releases connections or sessions; a call after it fails with [ErrUnavailable].
	Close() error
}

var (
	_ Models = (*ModelInferenceClient)(nil)
	_ Models = (*LocalModels)(nil)
)
