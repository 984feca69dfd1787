package dwcpml

import (
	"context"
	"math"
	"strings"
	"testing"
)

func TestInvalidFeaturesAreRejectedBeforeAnythingIsSent(t *testing.T) {
	ctx := context.Background()
	with := func(length, at int, value float64) []float64 {
		values := make([]float64, length)
		values[at] = value
		return values
	}
	inf := math.Inf(1)
	for name, example := range map[string]struct {
		call func(*watchedClient) error
		says string
	}{
		"bandwidth, none":   {func(c *watchedClient) error { _, err := c.PredictBandwidth(ctx, nil); return err }, "7 values"},
		"bandwidth, 8":      {func(c *watchedClient) error { _, err := c.PredictBandwidth(ctx, make([]float64, 8)); return err }, "not 8"},
		"bandwidth, 69":     {func(c *watchedClient) error { _, err := c.PredictBandwidth(ctx, make([]float64, 69)); return err }, "or 70"},
		"bandwidth, NaN":    {func(c *watchedClient) error { _, err := c.PredictBandwidth(ctx, with(7, 0, nan)); return err }, "rtt_ms"},
		"bandwidth, window": {func(c *watchedClient) error { _, err := c.PredictBandwidth(ctx, with(70, 69, inf)); return err }, "value 69 (congestion_window)"},
		"compression, 5":    {func(c *watchedClient) error { _, err := c.SelectCompression(ctx, make([]float64, 5)); return err }, "6 values"},
		"compression, 1e39": {func(c *watchedClient) error { _, err := c.SelectCompression(ctx, with(6, 1, 1e39)); return err }, "rtt_ms"},
		"reliability, 7":    {func(c *watchedClient) error { _, _, err := c.DetectAnomaly(ctx, make([]float64, 7)); return err }, "6 values"},
		"reliability, -Inf": {func(c *watchedClient) error { _, _, err := c.DetectAnomaly(ctx, with(6, 2, -inf)); return err }, "packet_loss"},
		"latency, 19":       {func(c *watchedClient) error { _, err := c.DetectHighLatency(ctx, make([]float64, 19)); return err }, "20 values"},
		"latency, NaN":      {func(c *watchedClient) error { _, err := c.DetectHighLatency(ctx, with(20, 19, nan)); return err }, "value 19"},
		"Infer, no such":    {func(c *watchedClient) error { _, err := c.Infer(ctx, "latency", nil); return err }, "no model"},
		"Infer, none":       {func(c *watchedClient) error { _, err := c.Infer(ctx, ConsensusLatency, nil); return err }, "no instance"},
		"Infer, one is short": {func(c *watchedClient) error {
			_, err := c.Infer(ctx, BandwidthPredictor, [][]float64{make([]float64, 70), make([]float64, 7)})
			return err
		}, "instance 1"},
		"Infer, NaN": {func(c *watchedClient) error {
			_, err := c.Infer(ctx, ReliabilityDetector, [][]float64{with(6, 5, nan)})
			return err
		}, "rtt_ms"},
		"request id": {func(c *watchedClient) error {
			_, err := c.Infer(WithRequestID(ctx, "a\nb"), ReliabilityDetector, [][]float64{make([]float64, 6)})
			return err
		}, "request id"},
		"empty request id": {func(c *watchedClient) error {
			_, err := c.SelectCompression(WithRequestID(ctx, ""), make([]float64, 6))
			return err
		}, "request id"},
		"link": {func(c *watchedClient) error {
			_, err := c.PredictBandwidth(WithLink(ctx, ""), observation(1))
			return err
		}, "link"},
		"long link": {func(c *watchedClient) error {
			_, err := c.PredictBandwidth(WithLink(ctx, strings.Repeat("a", 513)), observation(1))
			return err
		}, "512"},
		"ready, no such": {func(c *watchedClient) error { return c.Ready(ctx, "bandwidth") }, "no model"},
	} {
		t.Run(name, func(t *testing.T) {
			client := newWatchedClient(t, nil)
			problem := wantError(t, example.call(client), ErrInvalidInput, example.says)
			if problem.RequestID != "" || problem.Code != 0 || len(client.transport.calls) != 0 {
				t.Fatalf("something was sent: %+v", problem)
			}
		})
	}
}
