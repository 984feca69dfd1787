package dwcpml

import (
	"errors"
	"fmt"
	"time"
)

// Kinds of errors, for [errors.Is]. Every error of a call is an [*Error] of one of these kinds, or of
// kind [context.Canceled] if the caller canceled it.
var (
	// ErrInvalidInput says that the features, an option or a name are invalid. The client finds it
	// before it sends anything, or the server does (400). A retry gives the same error.
	ErrInvalidInput = errors.New("invalid input")
	// ErrModelNotFound says that the server or the bundle directory has no such model or version.
	ErrModelNotFound = errors.New("model not found")
	// ErrNotReady says that the server responded, but can't serve the model now (503).
	ErrNotReady = errors.New("not ready")
	// ErrTooLarge says that the request exceeds the server's limits (413).
	ErrTooLarge = errors.New("request too large")
	// ErrTimeout says that the deadline passed; such an error is context.DeadlineExceeded too
	// unless it was the server's own deadline.
	ErrTimeout = errors.New("timeout")
	// ErrUnavailable says that the server can't be reached, failed, or that the client is closed.
	ErrUnavailable = errors.New("unavailable")
	// ErrBadResponse says that a response does not match the contract.
	ErrBadResponse = errors.New("bad response")
)

// Error is the error of every failed call; find it with [errors.As].
type Error struct {
	// Model is the full name of the model, empty if the error is not about one.
	Model string
	// Code is the HTTP status of the response, or the one that its gRPC status stands for; 0 without
	// a response.
	Code int
	// RequestID is the id in the response, or the one that was sent; empty if nothing was.
	RequestID string
	// Message is one sentence, the server's own if it sent one.
	Message string

	kind       error
	cause      error
	retry      bool
	retryAfter time.Duration
}

// Error returns one line with the model, the message, and the request id to look for in the server's log.
func (e *Error) Error() string {
	text := e.Message
	if e.Model != "" {
		text = e.Model + ": " + text
	}
	switch {
	case e.Code != 0 && e.RequestID != "":
		return fmt.Sprintf("%s (%d, request %s)", text, e.Code, e.RequestID)
	case e.RequestID != "":
		return fmt.Sprintf("%s (request %s)", text, e.RequestID)
	default:
		return text
	}
}

// Unwrap returns the kind and, where there is one, the cause.
func (e *Error) Unwrap() []error {
	if e.cause == nil {
		return []error{e.kind}
	}
	return []error{e.kind, e.cause}
}

func invalid(model, format string, values ...any) *Error {
	return &Error{Model: model, kind: ErrInvalidInput, Message: fmt.Sprintf(format, values...)}
}

func badResponse(format string, values ...any) *Error {
	return &Error{kind: ErrBadResponse, Message: fmt.Sprintf(format, values...)}
}

// kindOf maps an HTTP status to the kind of its error.
func kindOf(status int) error {
	switch {
	case status == 400 || status == 422:
		return ErrInvalidInput
	case status == 404:
		return ErrModelNotFound
	case status == 408 || status == 504:
		return ErrTimeout
	case status == 413:
		return ErrTooLarge
	case status == 429 || status == 503:
		return ErrNotReady
	case status >= 500:
		return ErrUnavailable
	default:
		return ErrBadResponse
	}
}
