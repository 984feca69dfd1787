package dwcpml

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	headerRequestID  = "X-Request-Id"
	headerLink       = "X-DWCP-Link"
	headerObservedAt = "X-DWCP-Observed-At"
	headerVersion    = "X-DWCP-Model-Version"
)

// All calls share a connection over HTTP/2 and over gRPC. One that goes silent without a reset, behind a
// gateway that lost its state, would fail all of them for minutes; a ping finds it within seconds.
const (
	http2PingAfter = 3 * time.Second
	// grpcPingAfter is the shortest time that grpc-go allows. It pings only while there is a call, as
	// servers with gRPC's defaults reject other pings.
	grpcPingAfter = 10 * time.Second
	pingTimeout   = 2 * time.Second
)

// transport sends one call once. The error lacks only what try adds.
type transport interface {
	infer(ctx context.Context, call *modelCall) ([]Prediction, *Error)
	ready(ctx context.Context, call *modelCall) *Error
	report(ctx context.Context, call *modelCall, report *outcomeReport) *Error
	close() error
}

// headers passes the name and value of each header of a call to set.
func (c *modelCall) headers(set func(name, value string)) {
	set(headerRequestID, c.requestID)
	if c.link != "" {
		set(headerLink, encodeLink(c.link))
	}
	if !c.observedAt.IsZero() {
		set(headerObservedAt, formatTime(c.observedAt))
	}
}

const maxMessageLength = 500

// rejection is the error of a response with this status.
func rejection(status int, message, requestID, retryAfter string) *Error {
	message = strings.ToValidUTF8(strings.TrimSpace(message), "")
	if message == "" {
		message = strings.ToLower(http.StatusText(status))
	}
	if len(message) > maxMessageLength {
		message = strings.ToValidUTF8(message[:maxMessageLength], "") + "…"
	}
	problem := &Error{Code: status, RequestID: requestID, Message: message, kind: kindOf(status)}
	if status == http.StatusServiceUnavailable {
		problem.retry = true
		problem.retryAfter = parseRetryAfter(retryAfter, time.Now())
	}
	return problem
}

// parseRetryAfter reads seconds or a date; an unreadable value is no wait.
func parseRetryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(text); err == nil {
		const day = 24 * 60 * 60
		return time.Duration(min(max(seconds, 0), day)) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
