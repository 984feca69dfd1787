package dwcpml

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

func rejections(count int, retryAfter string) []*Error {
	problems := make([]*Error, count)
	for at := range problems {
		problems[at] = rejection(503, "draining", "", retryAfter)
	}
	return problems
}

func TestAttemptsAreBoundedAndWaitsDouble(t *testing.T) {
	client := newWatchedClient(t, rejections(9, ""),
		WithAttempts(6), WithBackoff(10*time.Millisecond, 60*time.Millisecond), WithTimeout(time.Minute))
	_, err := client.PredictBandwidth(context.Background(), observation(1))
	wantError(t, err, ErrNotReady, "draining", "503", "bandwidth_predictor")
	if sent := len(client.transport.calls); sent != 6 {
		t.Fatalf("%d requests were sent, want 6", sent)
	}
	ms := time.Millisecond
	if want := []time.Duration{10 * ms, 20 * ms, 40 * ms, 60 * ms, 60 * ms}; !slices.Equal(client.waits, want) {
		t.Fatalf("the waits were %v, want %v", client.waits, want)
	}
}

func TestAWaitIsDrawnFromTheUpperHalf(t *testing.T) {
	client := newWatchedClient(t, nil, WithBackoff(100*time.Millisecond, time.Second))
	client.remote.jitter = func() float64 { return 0 }
	if wait := client.remote.backoff(1); wait != 50*time.Millisecond {
		t.Fatalf("the shortest wait is %s, want 50ms", wait)
	}
	for range 100 {
		client.remote.jitter = jitter
		if wait := client.remote.backoff(2); wait < 100*time.Millisecond || wait > 200*time.Millisecond {
			t.Fatalf("the wait %s is not within 100ms and 200ms", wait)
		}
	}
}

func TestTheSameRequestIDIsSentWithEachAttempt(t *testing.T) {
	client := newWatchedClient(t, rejections(2, ""))
	if _, err := client.PredictBandwidth(context.Background(), observation(1)); err != nil {
		t.Fatal(err)
	}
	first := client.transport.calls[0].requestID
	for _, call := range client.transport.calls {
		if call.requestID != first || first == "" {
			t.Fatalf("the ids were %q and %q", first, call.requestID)
		}
	}
}

func TestRetryAfterIsHonouredWithinTheDeadlineOnly(t *testing.T) {
	client := newWatchedClient(t, rejections(1, "2"), WithTimeout(time.Minute))
	if _, err := client.PredictBandwidth(context.Background(), observation(1)); err != nil {
		t.Fatal(err)
	}
	if want := []time.Duration{2 * time.Second}; !slices.Equal(client.waits, want) {
		t.Fatalf("the waits were %v, want %v", client.waits, want)
	}

	limited := newWatchedClient(t, rejections(1, "120"), WithTimeout(time.Minute))
	_, err := limited.PredictBandwidth(context.Background(), observation(1))
	wantError(t, err, ErrNotReady)
	if len(limited.waits) != 0 || len(limited.transport.calls) != 1 {
		t.Fatalf("it waited %v for a time past the deadline", limited.waits)
	}
}

func TestPermanentErrorsAreNotRetried(t *testing.T) {
	for _, status := range []int{400, 401, 404, 408, 413, 422, 429, 500, 502, 504} {
		client := newWatchedClient(t, []*Error{rejection(status, "no", "", "1")})
		_, err := client.PredictBandwidth(context.Background(), observation(1))
		if problem := wantError(t, err, kindOf(status)); problem.Code != status {
			t.Errorf("the code is %d, want %d", problem.Code, status)
		}
		if sent := len(client.transport.calls); sent != 1 {
			t.Errorf("%d: %d requests were sent, want 1", status, sent)
		}
	}
}

func TestAContextThatIsDoneSendsNothing(t *testing.T) {
	client := newWatchedClient(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := client.SelectCompression(ctx, make([]float64, 6))
	wantError(t, err, context.Canceled, "was canceled")
	if errors.Is(err, ErrTimeout) {
		t.Error("a canceled call is not a timeout")
	}
	expired, cancel := context.WithDeadline(context.Background(), time.Unix(0, 0))
	defer cancel()
	_, err = client.SelectCompression(expired, make([]float64, 6))
	wantError(t, err, ErrTimeout)
	wantError(t, err, context.DeadlineExceeded)
	if len(client.transport.calls) != 0 {
		t.Error("a request was sent")
	}
}

func TestTheCallerCancelsDuringAWait(t *testing.T) {
	client := newWatchedClient(t, rejections(3, ""))
	client.remote.pause = pause
	client.settings().backoff, client.settings().maxBackoff = 20*time.Second, 20*time.Second
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err := client.PredictBandwidth(ctx, observation(1))
	wantError(t, err, context.Canceled)
}

func (w *watchedClient) settings() *settings { return w.remote.settings }

func TestAClosedClientSendsNothing(t *testing.T) {
	client := newWatchedClient(t, nil)
	for range 2 {
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, err := client.PredictBandwidth(context.Background(), observation(1))
	wantError(t, err, ErrUnavailable, "closed")
	if !client.transport.closed || len(client.transport.calls) != 0 {
		t.Error("the transport is open, or was used")
	}
}

func TestRetryAfterIsSecondsOrADate(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"":                              0,
		"soon":                          0,
		"-5":                            0,
		"7":                             7 * time.Second,
		"99999999999":                   24 * time.Hour,
		"Fri, 02 Jan 2026 03:04:15 GMT": 10 * time.Second,
		"Fri, 02 Jan 2026 03:00:00 GMT": 0,
	} {
		if got := parseRetryAfter(text, now); got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}

func TestEachStatusHasOneKind(t *testing.T) {
	for status, want := range map[int]error{
		200: ErrBadResponse, 302: ErrBadResponse, 400: ErrInvalidInput, 401: ErrBadResponse, 404: ErrModelNotFound,
		408: ErrTimeout, 413: ErrTooLarge, 422: ErrInvalidInput, 429: ErrNotReady, 500: ErrUnavailable,
		502: ErrUnavailable, 503: ErrNotReady, 504: ErrTimeout,
	} {
		if got := kindOf(status); got != want {
			t.Errorf("%d is %v, want %v", status, got, want)
		}
	}
}
