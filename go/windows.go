package dwcpml

import (
	"container/list"
	"sync"
	"time"
)

// windows stores the last observations of each link, up to a number of links; beyond it, the least
// recently used link is removed. The client's own window, for calls without a link, is never removed.
type windows struct {
	mutex    sync.Mutex
	capacity int
	own      *window
	order    *list.List // of *window, most recently used first
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

// push adds an observation of a link and returns a copy of the link's window, filled up
// with copies of its first observation at the start. An observation with the same time as the previous
// one replaces it.
func (w *windows) push(link string, observation []float64, observedAt time.Time) []float64 {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	current := w.find(link)
	switch {
	case current.values == nil:
		current.values = make([]float64, 0, bandwidthSteps*bandwidthFeatures)
		for range bandwidthSteps {
			current.values = append(current.values, observation...)
		}
	case observedAt.IsZero() || !observedAt.Equal(current.observedAt):
		copy(current.values, current.values[bandwidthFeatures:])
		fallthrough
	default:
		copy(current.values[len(current.values)-bandwidthFeatures:], observation)
	}
	current.observedAt = observedAt
	return append([]float64(nil), current.values...)
}

// find returns the window of a link, an empty one for a new link.
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
	created := &window{link: link}
	w.byLink[link] = w.order.PushFront(created)
	return created
}
