package dwcpml

import (
	"context"
	"crypto/rand"
	"time"
)

type contextKey int

const (
	requestIDKey contextKey = iota
	linkKey
	observedAtKey
)

const (
	maxRequestID = 128
	maxLink      = 512
)

// WithRequestID returns a context whose calls carry this request id, in X-Request-Id; without it each
// call makes one. The id is 1 to 128 printable ASCII characters.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey, id)
}

// WithLink returns a context that names the link or node which the features are of:
// "<node_id>/<peer_id>", or "<node_id>" alone; 1 to 512 printable ASCII characters. PredictBandwidth
// keeps one window for each link, and the server is told the link in X-DWCP-Link.
func WithLink(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, linkKey, key)
}

// WithObservedAt returns a context that says when the last observation in the features was made. The
// server is told in X-DWCP-Observed-At, and takes its own clock without it. A second observation of
// a link with the time of the one before replaces it, so that a call repeated by the caller counts
// once.
func WithObservedAt(ctx context.Context, at time.Time) context.Context {
	return context.WithValue(ctx, observedAtKey, at)
}

// labels are what a context says about a call.
type labels struct {
	requestID  string
	link       string // empty: the window of the client
	observedAt time.Time
}

// labelsOf reads the context, and makes a request id where it has none.
func labelsOf(ctx context.Context, model string) (labels, error) {
	found := labels{}
	found.observedAt, _ = ctx.Value(observedAtKey).(time.Time)
	if id, given := ctx.Value(requestIDKey).(string); given {
		if !printable(id, maxRequestID) {
			return found, invalid(model, "the request id must be 1 to %d printable ASCII characters", maxRequestID)
		}
		found.requestID = id
	} else {
		found.requestID = rand.Text()
	}
	if link, given := ctx.Value(linkKey).(string); given {
		if !printable(link, maxLink) {
			return found, invalid(model, "the link must be 1 to %d printable ASCII characters", maxLink)
		}
		found.link = link
	}
	return found, nil
}

// printable says whether text can stand in an HTTP header and in gRPC metadata unchanged.
func printable(text string, longest int) bool {
	if text == "" || len(text) > longest || text[0] == ' ' || text[len(text)-1] == ' ' {
		return false
	}
	for at := range len(text) {
		if text[at] < ' ' || text[at] > '~' {
			return false
		}
	}
	return true
}

// formatTime writes a time as X-DWCP-Observed-At carries it.
func formatTime(at time.Time) string {
	return at.UTC().Format(time.RFC3339Nano)
}
