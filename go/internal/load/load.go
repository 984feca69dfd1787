// Package load sends requests to a server, as fast as it responds or at a fixed rate, and counts.
package load

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Sender sends one request and waits for the whole response. code is empty for a good response, else an
// HTTP status or a word; it is used by one goroutine at a time.
type Sender interface {
	Send(ctx context.Context, number uint64) (code string)
	Close() error
}

// Plan is how the requests are sent.
type Plan struct {
	// Connections is the maximum number of concurrent requests, each from its own sender.
	Connections int
	// Rate is the number of requests a second in total; 0 sends the next one after the
	// response to the last.
	Rate float64
	// Warmup is the time before the measurement; what is sent in it is not counted.
	Warmup time.Duration
	// Duration is the time in which requests are sent and counted.
	Duration time.Duration
	// Grace bounds the wait, after Duration, for requests of a fixed rate that are late.
	Grace time.Duration
}

// Report is what came of it. Latencies are in milliseconds and those of good responses; at a fixed rate
// they run from the moment at which a request should have been sent, so that one slow response does
// not hide the wait of those behind it.
type Report struct {
	Requests    uint64            `json:"requests"`
	Good        uint64            `json:"good"`
	Errors      map[string]uint64 `json:"errors"`
	Seconds     float64           `json:"seconds"`
	Rate        float64           `json:"rps"`
	Mean        float64           `json:"mean_ms"`
	P50         float64           `json:"p50_ms"`
	P90         float64           `json:"p90_ms"`
	P99         float64           `json:"p99_ms"`
	P999        float64           `json:"p99_9_ms"`
	Max         float64           `json:"max_ms"`
	Connections int               `json:"connections"`
	TargetRate  float64           `json:"target_rps,omitempty"`
}

// NotSent is the code of requests of a fixed rate whose turn came too late to be sent at all.
const NotSent = "not_sent"

// tally is what one worker has counted.
type tally struct {
	latencies Histogram
	errors    map[string]uint64
	last      time.Time
}

// schedule hands out requests: a number, and the time at which it should be sent.
type schedule struct {
	plan    Plan
	start   time.Time
	counted time.Time
	end     time.Time
	next    atomic.Uint64
}

// take returns the next request, or false when there is none left.
func (s *schedule) take() (number uint64, intended time.Time, found bool) {
	number = s.next.Add(1) - 1
	if s.plan.Rate > 0 {
		intended = s.start.Add(time.Duration(float64(number) / s.plan.Rate * float64(time.Second)))
	} else {
		intended = time.Now()
	}
	return number, intended, intended.Before(s.end)
}

// Run sends requests until the plan is over or the context is done; then it counts what there is.
func Run(ctx context.Context, plan Plan, senders []Sender) Report {
	now := time.Now()
	timetable := &schedule{plan: plan, start: now, counted: now.Add(plan.Warmup)}
	timetable.end = timetable.counted.Add(plan.Duration)
	tallies := make([]*tally, len(senders))
	var group sync.WaitGroup
	for at, sender := range senders {
		tallies[at] = &tally{errors: map[string]uint64{}}
		group.Go(func() { tallies[at].work(ctx, timetable, sender) })
	}
	group.Wait()
	return timetable.report(tallies)
}

func (t *tally) work(ctx context.Context, timetable *schedule, sender Sender) {
	for ctx.Err() == nil {
		number, intended, found := timetable.take()
		if !found || !waitFor(ctx, intended) {
			return
		}
		code := NotSent
		if time.Now().Before(timetable.end.Add(timetable.plan.Grace)) {
			code = sender.Send(ctx, number)
		}
		done := time.Now()
		if intended.Before(timetable.counted) || ctx.Err() != nil {
			continue
		}
		t.last = done
		if code != "" {
			t.errors[code]++
			continue
		}
		t.latencies.Add(done.Sub(intended))
	}
}

// waitFor returns at a time, or false when the context is done first.
func waitFor(ctx context.Context, at time.Time) bool {
	const interval = 100 * time.Millisecond // of the checks of the context
	for {
		left := time.Until(at)
		if left <= 0 {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		sleep(min(left, interval))
	}
}

func (s *schedule) report(tallies []*tally) Report {
	report := Report{Errors: map[string]uint64{}, Connections: len(tallies), TargetRate: s.plan.Rate}
	var all Histogram
	last := s.counted
	for _, one := range tallies {
		all.Merge(&one.latencies)
		for code, count := range one.errors {
			report.Errors[code] += count
			report.Requests += count
		}
		if one.last.After(last) {
			last = one.last
		}
	}
	report.Good = all.total
	report.Requests += all.total
	report.Seconds = last.Sub(s.counted).Seconds()
	if report.Seconds > 0 {
		report.Rate = float64(report.Good) / report.Seconds
	}
	ms := func(duration time.Duration) float64 { return float64(duration) / float64(time.Millisecond) }
	report.Mean, report.Max = ms(all.Mean()), ms(all.max)
	report.P50, report.P90 = ms(all.Quantile(0.5)), ms(all.Quantile(0.9))
	report.P99, report.P999 = ms(all.Quantile(0.99)), ms(all.Quantile(0.999))
	return report
}
