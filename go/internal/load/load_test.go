package load

import (
	"context"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// scripted takes a time and says a code for each request; it keeps the numbers it was given.
type scripted struct {
	mutex   *sync.Mutex
	numbers *[]uint64
	take    func(number uint64) time.Duration
	code    func(number uint64) string
}

func (s scripted) Send(_ context.Context, number uint64) string {
	s.mutex.Lock()
	*s.numbers = append(*s.numbers, number)
	s.mutex.Unlock()
	time.Sleep(s.take(number))
	return s.code(number)
}

func (scripted) Close() error { return nil }

func script(count int, take func(uint64) time.Duration, code func(uint64) string) ([]Sender, *[]uint64) {
	numbers := &[]uint64{}
	shared := &sync.Mutex{}
	senders := make([]Sender, count)
	for at := range senders {
		senders[at] = scripted{shared, numbers, take, code}
	}
	return senders, numbers
}

func millisecond(uint64) time.Duration { return time.Millisecond }

func good(uint64) string { return "" }

func TestAFixedRateSendsEachRequestOnceAndCountsByCode(t *testing.T) {
	odd := func(number uint64) string { return []string{"", "503"}[number%2] }
	senders, numbers := script(4, millisecond, odd)
	report := Run(context.Background(), Plan{Rate: 500, Duration: 200 * time.Millisecond, Grace: time.Minute}, senders)
	if report.Requests != 100 || report.Good != 50 || !reflect.DeepEqual(report.Errors, map[string]uint64{"503": 50}) {
		t.Fatalf("got %+v", report)
	}
	slices.Sort(*numbers)
	for at, number := range *numbers {
		if number != uint64(at) {
			t.Fatalf("request %d was sent as number %d", at, number)
		}
	}
}

func TestASlowResponseDelaysTheRequestsBehindIt(t *testing.T) {
	stall := func(number uint64) time.Duration {
		if number == 0 {
			return 100 * time.Millisecond
		}
		return 0
	}
	senders, _ := script(1, stall, good)
	report := Run(context.Background(), Plan{Rate: 1000, Duration: 100 * time.Millisecond, Grace: time.Minute}, senders)
	if report.Requests != 100 {
		t.Fatalf("got %+v", report)
	}
	// Request n should go out at n ms and can't before 100 ms: half of them wait at least 50 ms.
	if report.P50 < 45 {
		t.Fatalf("the median hides the wait: %+v", report)
	}
}

func TestLateRequestsAreCountedAndNotSent(t *testing.T) {
	senders, numbers := script(1, func(uint64) time.Duration { return 50 * time.Millisecond }, good)
	report := Run(context.Background(), Plan{Rate: 1000, Duration: 100 * time.Millisecond}, senders)
	if report.Requests != 100 || report.Errors[NotSent]+report.Good != 100 || len(*numbers) != int(report.Good) || report.Good > 10 {
		t.Fatalf("%d were sent: %+v", len(*numbers), report)
	}
}

func TestWithoutARateTheNextRequestFollowsTheResponseAndTheWarmupIsNotCounted(t *testing.T) {
	senders, numbers := script(2, millisecond, good)
	report := Run(context.Background(), Plan{Warmup: 50 * time.Millisecond, Duration: 50 * time.Millisecond}, senders)
	if report.Good == 0 || report.Good >= uint64(len(*numbers)) || report.P50 < 1 || report.Connections != 2 {
		t.Fatalf("%d were sent: %+v", len(*numbers), report)
	}
}

func TestACancelledRunEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	senders, numbers := script(2, millisecond, good)
	if report := Run(ctx, Plan{Rate: 0.001, Duration: time.Hour}, senders); report.Requests != 0 || len(*numbers) != 0 {
		t.Fatalf("%d were sent: %+v", len(*numbers), report)
	}
}

func TestRawCyclesTheBodiesOverOneConnection(t *testing.T) {
	var bodies []string
	var connections sync.Map
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		body := make([]byte, request.ContentLength)
		_, _ = request.Body.Read(body)
		bodies = append(bodies, string(body)+" "+request.URL.RequestURI()+" "+request.Header.Get("X-A"))
		connections.Store(request.RemoteAddr, true)
		if len(bodies) == 4 {
			writer.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = writer.Write([]byte(strings.Repeat("x", 5000))) // large enough for chunks
	}))
	defer server.Close()
	address, requests, err := RawRequests(server.URL+"/p?q=1", []string{"X-A: b"}, [][]byte{[]byte("one"), []byte("three")})
	if err != nil {
		t.Fatal(err)
	}
	sender := NewRaw(address, time.Minute, requests)
	defer sender.Close()
	var codes []string
	for number := range uint64(4) {
		codes = append(codes, sender.Send(context.Background(), number))
	}
	if want := []string{"", "", "", "503"}; !slices.Equal(codes, want) {
		t.Errorf("the codes are %q, want %q", codes, want)
	}
	if want := []string{"one /p?q=1 b", "three /p?q=1 b", "one /p?q=1 b", "three /p?q=1 b"}; !slices.Equal(bodies, want) {
		t.Errorf("the bodies were %q, want %q", bodies, want)
	}
	count := 0
	connections.Range(func(any, any) bool { count++; return true })
	if count != 1 {
		t.Errorf("%d connections were used, want 1", count)
	}
	server.CloseClientConnections()
	if code := sender.Send(context.Background(), 0); code != "read" && code != "write" {
		t.Errorf("a closed connection is %q", code)
	}
	if code := sender.Send(context.Background(), 0); code != "" {
		t.Errorf("it does not connect again: %q", code)
	}
}

func TestRawReportsWhyThereIsNoResponse(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	address, requests, err := RawRequests(server.URL, nil, [][]byte{nil})
	if err != nil {
		t.Fatal(err)
	}
	slow := NewRaw(address, 20*time.Millisecond, requests)
	if code := slow.Send(context.Background(), 0); code != "timeout" {
		t.Errorf("a slow server is %q", code)
	}
	close(release)
	server.Close()
	if code := slow.Send(context.Background(), 0); code != "connect" {
		t.Errorf("a server that is gone is %q", code)
	}
	for _, bad := range []string{"https://models/x", "models:80", "http://", "%"} {
		if _, _, err := RawRequests(bad, nil, nil); err == nil {
			t.Errorf("%q was taken for a target", bad)
		}
	}
	if _, _, err := RawRequests("http://models", []string{"nonsense"}, [][]byte{nil}); err == nil {
		t.Error("nonsense was taken for a header")
	}
}

func TestInstances(t *testing.T) {
	got, err := Instances([]byte(`{"instances": [[[1, 2], [3, 4e1]], [5, 6]]}`))
	if want := [][]float64{{1, 2, 3, 40}, {5, 6}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %v, %v; want %v", got, err, want)
	}
	for _, bad := range []string{"x", "{}", `{"instances":[]}`, `{"instances":[{"a":1}]}`, `{"instances":[["x"]]}`} {
		if got, err := Instances([]byte(bad)); err == nil {
			t.Errorf("%s was read as %v", bad, got)
		}
	}
}
