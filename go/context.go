package dwcpml

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
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

// WithRequestID returns a context whose calls carry this request id, in X-Request-Id; without it, each
// call generates one. The id is 1 to 128 printable ASCII characters.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey, id)
}

// WithLink returns a context that names the link or node which the features are of:
// "<node_id>/<peer_id>", or "<node_id>" alone; 1 to 512 bytes of UTF-8, in any script. PredictBandwidth
// stores one window for each link, and the server receives the link in X-DWCP-Link, percent-encoded
// where it is not ASCII. White space around a name does not count, and 60.0, as pandas writes the number 60, is the node 60.
func WithLink(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, linkKey, key)
}

// WithObservedAt returns a context that says when the last observation in the features was made. The
// server receives it in X-DWCP-Observed-At, and uses its own clock without it. A second observation of
// a link with the time of the one before replaces it, so that a call repeated by the caller counts
// once.
func WithObservedAt(ctx context.Context, at time.Time) context.Context {
	return context.WithValue(ctx, observedAtKey, at)
}

// callLabels are the headers of a call, from its context.
type callLabels struct {
	requestID  string
	named      bool   // the caller chose the request id, so that it can name the call later
	link       string // empty: the window of the client
	observedAt time.Time
}

// labelsOf reads the context, and generates a request id if it has none.
func labelsOf(ctx context.Context, model string) (callLabels, error) {
	labels := callLabels{}
	labels.observedAt, _ = ctx.Value(observedAtKey).(time.Time)
	if id, given := ctx.Value(requestIDKey).(string); given {
		if !printable(id, maxRequestID) {
			return labels, invalid(model, "the request id must be 1 to %d printable ASCII characters", maxRequestID)
		}
		labels.requestID, labels.named = id, true
	} else {
		labels.requestID = rand.Text()
	}
	if link, given := ctx.Value(linkKey).(string); given {
		link = normalLink(link)
		if link == "" || len(link) > maxLink || !utf8.ValidString(link) {
			return labels, invalid(model, "the link must be 1 to %d bytes of UTF-8", maxLink)
		}
		labels.link = link
	}
	return labels, nil
}

// printable reports whether text can be an HTTP header and gRPC metadata unchanged.
func printable(text string, maxLength int) bool {
	if text == "" || len(text) > maxLength || text[0] == ' ' || text[len(text)-1] == ' ' {
		return false
	}
	for at := range len(text) {
		if text[at] < ' ' || text[at] > '~' {
			return false
		}
	}
	return true
}

// encodeLink writes a link as X-DWCP-Link carries it: what is not printable ASCII, and the percent
// sign, as percent-encoded UTF-8.
func encodeLink(link string) string {
	plain := true
	for at := range len(link) {
		plain = plain && link[at] >= ' ' && link[at] <= '~' && link[at] != '%'
	}
	if plain {
		return link
	}
	var encoded strings.Builder
	for at := range len(link) {
		if c := link[at]; c >= ' ' && c <= '~' && c != '%' {
			encoded.WriteByte(c)
		} else {
			fmt.Fprintf(&encoded, "%%%02X", c)
		}
	}
	return encoded.String()
}

// formatTime writes a time as X-DWCP-Observed-At carries it.
func formatTime(at time.Time) string {
	return at.UTC().Format(time.RFC3339Nano)
}
