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
)

// transport sends one question once. A problem is complete but for what try adds.
type transport interface {
	infer(ctx context.Context, question *call) ([]Answer, *Error)
	ready(ctx context.Context, question *call) *Error
	close() error
}

// headers calls set with the name and value of each header of a question.
func (c *call) headers(set func(name, value string)) {
	set(headerRequestID, c.requestID)
	if c.link != "" {
		set(headerLink, c.link)
	}
	if !c.observedAt.IsZero() {
		set(headerObservedAt, formatTime(c.observedAt))
	}
}

const longestMessage = 500

// refusal is the error of an answer with this status.
func refusal(status int, message, requestID, retryAfter string) *Error {
	message = strings.ToValidUTF8(strings.TrimSpace(message), "")
	if message == "" {
		message = strings.ToLower(http.StatusText(status))
	}
	if len(message) > longestMessage {
		message = strings.ToValidUTF8(message[:longestMessage], "") + "…"
	}
	problem := &Error{Code: status, RequestID: requestID, Message: message, kind: kindOf(status)}
	if status == http.StatusServiceUnavailable {
		problem.retry = true
		problem.retryAfter = parseRetryAfter(retryAfter, time.Now())
	}
	return problem
}

// parseRetryAfter reads seconds or a date; what can't be read is no wait.
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
