package dwcpml

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// pauseFunc waits; it returns early, with the context's error, when the context is done.
type pauseFunc func(ctx context.Context, wait time.Duration) error

func pause(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func jitter() float64 { return rand.Float64() }

// try sends until there is a response, an error that another attempt would not fix, the last attempt,
// or a wait that would exceed the deadline. Inference changes nothing at the server, so a
// request may be sent again even when it is not known whether the first one arrived.
func (r *remote) try(ctx context.Context, call *modelCall, send func(context.Context) *Error) error {
	if r.closed.Load() {
		return &Error{Model: call.spec.Name, kind: ErrUnavailable, Message: "the client is closed"}
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.settings.timeout)
		defer cancel()
	}
	for attempt := 1; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return call.complete(contextError(err))
		}
		problem := send(ctx)
		if problem == nil {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return call.complete(contextError(err))
		}
		if !problem.retry || attempt == r.settings.attempts {
			return call.complete(problem)
		}
		wait := max(r.backoff(attempt), problem.retryAfter)
		if deadline, _ := ctx.Deadline(); time.Until(deadline) <= wait {
			return call.complete(problem)
		}
		if err := r.pause(ctx, wait); err != nil {
			return call.complete(contextError(err))
		}
	}
}

// backoff returns the wait after an attempt: it doubles each time, and is drawn from its upper half.
func (r *remote) backoff(attempt int) time.Duration {
	maximum := r.settings.maxBackoff
	full := r.settings.backoff
	for range attempt - 1 {
		if full >= maximum/2 {
			full = maximum
			break
		}
		full *= 2
	}
	return full/2 + time.Duration(r.jitter()*float64(full)/2)
}

// complete adds the model and the request id to an error.
func (c *modelCall) complete(problem *Error) *Error {
	problem.Model = c.spec.Name
	if problem.RequestID == "" {
		problem.RequestID = c.requestID
	}
	return problem
}

// contextError returns the error of a call whose context is done.
func contextError(err error) *Error {
	if errors.Is(err, context.Canceled) {
		return &Error{kind: context.Canceled, Message: "the call was canceled"}
	}
	return &Error{kind: ErrTimeout, cause: err, Message: "there was no response before the deadline"}
}

// unreachable returns the error of a request that got no response.
func unreachable(err error, retry bool) *Error {
	return &Error{
		kind: ErrUnavailable, cause: err, retry: retry,
		Message: fmt.Sprintf("the server can't be reached: %s", err),
	}
}
