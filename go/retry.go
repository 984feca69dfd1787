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

// try sends until there is an answer, an error that another attempt would not mend, the last
// attempt, or a wait that would pass the deadline. Inference changes nothing at the server, so a
// request may be sent again even when it is not known whether the first one arrived.
func (a *asker) try(ctx context.Context, question *call, send func(context.Context) *Error) error {
	if a.closed.Load() {
		return &Error{Model: question.spec.Name, kind: ErrUnavailable, Message: "the client is closed"}
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.settings.timeout)
		defer cancel()
	}
	for attempt := 1; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return question.complete(givenUp(err))
		}
		problem := send(ctx)
		if problem == nil {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return question.complete(givenUp(err))
		}
		if !problem.retry || attempt == a.settings.attempts {
			return question.complete(problem)
		}
		wait := max(a.backoff(attempt), problem.retryAfter)
		if deadline, _ := ctx.Deadline(); time.Until(deadline) <= wait {
			return question.complete(problem)
		}
		if err := a.pause(ctx, wait); err != nil {
			return question.complete(givenUp(err))
		}
	}
}

// backoff is the wait after an attempt: twice as long after each, and somewhere in the upper half.
func (a *asker) backoff(attempt int) time.Duration {
	longest := a.settings.longestBackoff
	full := a.settings.backoff
	for range attempt - 1 {
		if full >= longest/2 {
			full = longest
			break
		}
		full *= 2
	}
	return full/2 + time.Duration(a.jitter()*float64(full)/2)
}

// complete says in the error what was asked.
func (c *call) complete(problem *Error) *Error {
	problem.Model = c.spec.Name
	if problem.RequestID == "" {
		problem.RequestID = c.requestID
	}
	return problem
}

// givenUp is the error of a call whose context is done.
func givenUp(err error) *Error {
	if errors.Is(err, context.Canceled) {
		return &Error{kind: context.Canceled, Message: "the caller gave up"}
	}
	return &Error{kind: ErrTimeout, cause: err, Message: "there was no answer before the deadline"}
}

// unreachable is the error of a request that got no answer.
func unreachable(err error, retry bool) *Error {
	return &Error{
		kind: ErrUnavailable, cause: err, retry: retry,
		Message: fmt.Sprintf("the server can't be reached: %s", err),
	}
}
