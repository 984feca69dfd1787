package dwcpml

import (
	"errors"
	"fmt"
	"time"
)

// What can go wrong, for [errors.Is]. Every error of a call is an [*Error] of one of these kinds, or
// of kind [context.Canceled] when the caller gave up.
var (
	// ErrInvalidInput says that the features, an option or a name can't be used. It is found
	// before anything is sent, or by the server (400). Asking again changes nothing.
	ErrInvalidInput = errors.New("invalid input")
	// ErrModelNotFound says that the server or the bundle directory has no such model or version.
	ErrModelNotFound = errors.New("model not found")
	// ErrNotReady says that the server answered, and can't serve the model now (503).
	ErrNotReady = errors.New("not ready")
	// ErrTooLarge says that the request is over the server's limits (413).
	ErrTooLarge = errors.New("request too large")
	// ErrTimeout says that the deadline passed; such an error is context.DeadlineExceeded too
	// unless it was the server's own deadline.
	ErrTimeout = errors.New("timeout")
	// ErrUnavailable says that the server can't be reached, failed, or that the client is closed.
	ErrUnavailable = errors.New("unavailable")
	// ErrBadAnswer says that an answer came that is not what the contract promises.
	ErrBadAnswer = errors.New("bad answer")
)

// Error is what every failed call returns; find it with [errors.As].
type Error struct {
	// Model is the full name of the model that was asked, empty where there is none.
	Model string
	// Code is the HTTP status of the answer, or the one that its gRPC status stands for; 0 without
	// an answer.
	Code int
	// RequestID is the id in the answer, or the one that was sent; empty if nothing was.
	RequestID string
	// Message says in one sentence what is wrong, in the server's words where it has any.
	Message string

	kind       error
	cause      error
	retry      bool
	retryAfter time.Duration
}

// Error returns one line: the model, what is wrong, and the request to ask the server's people about.
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

func badAnswer(format string, values ...any) *Error {
	return &Error{kind: ErrBadAnswer, Message: fmt.Sprintf(format, values...)}
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
		return ErrBadAnswer
	}
}
