package dwcpml

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// expectedWindow builds a window from the whole history of a link: the definition, written plainly.
func expectedWindow(history [][]float64) []float64 {
	var window []float64
	for step := len(history) - bandwidthSteps; step < len(history); step++ {
		window = append(window, history[max(step, 0)]...)
	}
	return window
}

func TestWindowsAreTheLastTenObservationsOfEachLink(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		stored := newWindows(100)
		history := map[string][][]float64{}
		links := []string{"", "a/b", "a/c", "b/a"}
		for range 200 {
			link := links[random.IntN(len(links))]
			seen := observation(random.Float64())
			history[link] = append(history[link], seen)
			if got := stored.push(link, seen, time.Time{}); !slices.Equal(got, expectedWindow(history[link])) {
				t.Fatalf("seed %d, link %q, observation %d: got %v", seed, link, len(history[link]), got)
			}
		}
	}
}

func TestAReturnedWindowDoesNotChange(t *testing.T) {
	stored := newWindows(1)
	first := stored.push("a", observation(1), time.Time{})
	before := slices.Clone(first)
	stored.push("a", observation(2), time.Time{})
	if !slices.Equal(first, before) {
		t.Fatal("a later observation changed an earlier window")
	}
}

func TestTheLeastRecentlyUsedLinkIsRemoved(t *testing.T) {
	stored := newWindows(2)
	stored.push("", observation(9), time.Time{})
	stored.push("a", observation(1), time.Time{})
	stored.push("b", observation(2), time.Time{})
	stored.push("a", observation(3), time.Time{})
	stored.push("c", observation(4), time.Time{})
	if stored.order.Len() != 2 || len(stored.byLink) != 2 {
		t.Fatalf("%d links are stored, want 2", stored.order.Len())
	}
	if window := stored.push("a", observation(5), time.Time{}); window[0] != 1 {
		t.Fatalf("the window of a was removed: %v", window)
	}
	if window := stored.push("b", observation(6), time.Time{}); window[0] != 6 {
		t.Fatalf("the window of b was stored: %v", window)
	}
	if window := stored.push("", observation(7), time.Time{}); window[0] != 9 {
		t.Fatalf("the client's own window was removed: %v", window)
	}
}

func TestAnObservationOfTheSameTimeReplacesThePreviousOne(t *testing.T) {
	stored := newWindows(10)
	at := time.Unix(1_800_000_000, 0)
	stored.push("a", observation(1), at)
	stored.push("a", observation(2), at.Add(time.Minute))
	window := stored.push("a", observation(3), at.Add(time.Minute).In(time.FixedZone("east", 3600)))
	want := expectedWindow([][]float64{observation(1), observation(3)})
	if !slices.Equal(window, want) {
		t.Fatalf("got %v, want %v", window, want)
	}
}

func TestAnObservationCountsOnceEvenIfTheCallFails(t *testing.T) {
	broken := func() *Error { return &Error{kind: ErrUnavailable, retry: true, Message: "no"} }
	client := newWatchedClient(t, []*Error{broken(), broken(), nil, broken(), broken(), broken()})
	client.transport.problems = []*Error{broken(), broken()}
	ctx := WithLink(context.Background(), "a/b")
	if _, err := client.PredictBandwidth(ctx, observation(1)); err != nil {
		t.Fatal(err)
	}
	client.transport.problems = []*Error{broken(), broken(), broken()}
	_, err := client.PredictBandwidth(ctx, observation(2))
	wantError(t, err, ErrUnavailable)
	if _, err := client.PredictBandwidth(ctx, observation(3)); err != nil {
		t.Fatal(err)
	}
	calls := client.transport.calls
	if len(calls) != 7 {
		t.Fatalf("%d requests were sent, want 3 + 3 + 1", len(calls))
	}
	history := [][]float64{observation(1), observation(2), observation(3)}
	for at, upTo := range []int{1, 1, 1, 2, 2, 2, 3} {
		if !slices.Equal(calls[at].instances[0], expectedWindow(history[:upTo])) {
			t.Fatalf("request %d carried %v", at, calls[at].instances[0])
		}
	}
}

func TestAnExplicitWindowLeavesTheStoredOneUnchanged(t *testing.T) {
	client := newWatchedClient(t, nil)
	explicit := expectedWindow([][]float64{observation(7), observation(8)})
	for _, features := range [][]float64{observation(1), explicit, observation(2)} {
		if _, err := client.PredictBandwidth(context.Background(), features); err != nil {
			t.Fatal(err)
		}
	}
	calls := client.transport.calls
	if !slices.Equal(calls[1].instances[0], explicit) {
		t.Fatalf("the explicit window was sent as %v", calls[1].instances[0])
	}
	if want := expectedWindow([][]float64{observation(1), observation(2)}); !slices.Equal(calls[2].instances[0], want) {
		t.Fatalf("the stored window is %v", calls[2].instances[0])
	}
}

func TestAnInvalidObservationIsNotStored(t *testing.T) {
	client := newWatchedClient(t, nil)
	bad := observation(1)
	bad[3] = nan
	_, err := client.PredictBandwidth(context.Background(), bad)
	wantError(t, err, ErrInvalidInput, "packet_loss")
	if _, err := client.PredictBandwidth(context.Background(), observation(2)); err != nil {
		t.Fatal(err)
	}
	if window := client.transport.calls[0].instances[0]; window[0] != 2 {
		t.Fatalf("the window began with %v", window[0])
	}
}

func TestManyGoroutinesLoseNoObservation(t *testing.T) {
	client := newWatchedClient(t, nil, WithMaxLinks(8))
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			ctx := WithLink(context.Background(), fmt.Sprintf("node/%d", worker))
			for step := range 50 {
				if _, err := client.PredictBandwidth(ctx, observation(float64(step))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	for worker := range 8 {
		window := client.windows.push(fmt.Sprintf("node/%d", worker), observation(50), time.Time{})
		for step := range bandwidthSteps {
			if got, want := window[step*bandwidthFeatures], float64(41+step); got != want {
				t.Fatalf("node %d, step %d: got %v, want %v", worker, step, got, want)
			}
		}
	}
}
