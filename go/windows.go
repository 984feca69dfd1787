package dwcpml

import (
	"container/list"
	"sync"
	"time"
)

// windows keeps the last observations of each link, up to a number of links; then the link that was
// not heard of for the longest is forgotten. The window of the client itself, for calls that name no
// link, is never forgotten.
type windows struct {
	mutex    sync.Mutex
	capacity int
	own      *window
	order    *list.List // of *window, the latest heard of in front
	byLink   map[string]*list.Element
}

// window is a rolling window, oldest step first, row-major.
type window struct {
	link       string
	values     []float64
	observedAt time.Time
}

func newWindows(capacity int) *windows {
	return &windows{capacity: capacity, order: list.New(), byLink: map[string]*list.Element{}}
}

// push adds an observation of a link and returns a copy of the link's window, which begins with as
// many copies of its first observation as it takes to be full. An observation with the time of the
// one before replaces it.
func (w *windows) push(link string, observation []float64, observedAt time.Time) []float64 {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	kept := w.find(link)
	switch {
	case kept.values == nil:
		kept.values = make([]float64, 0, bandwidthSteps*bandwidthFeatures)
		for range bandwidthSteps {
			kept.values = append(kept.values, observation...)
		}
	case observedAt.IsZero() || !observedAt.Equal(kept.observedAt):
		copy(kept.values, kept.values[bandwidthFeatures:])
		fallthrough
	default:
		copy(kept.values[len(kept.values)-bandwidthFeatures:], observation)
	}
	kept.observedAt = observedAt
	return append([]float64(nil), kept.values...)
}

// find returns the window of a link, an empty one for a link not heard of yet.
func (w *windows) find(link string) *window {
	if link == "" {
		if w.own == nil {
			w.own = &window{}
		}
		return w.own
	}
	if element, known := w.byLink[link]; known {
		w.order.MoveToFront(element)
		return element.Value.(*window)
	}
	if w.order.Len() >= w.capacity {
		oldest := w.order.Remove(w.order.Back()).(*window)
		delete(w.byLink, oldest.link)
	}
	fresh := &window{link: link}
	w.byLink[link] = w.order.PushFront(fresh)
	return fresh
}
