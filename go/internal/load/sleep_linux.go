package load

import (
	"syscall"
	"time"
)

// sleep blocks the thread: the runtime's own timers are a millisecond late at times, which would
// stand in every latency of a fixed rate.
func sleep(duration time.Duration) {
	span := syscall.NsecToTimespec(int64(duration))
	_ = syscall.Nanosleep(&span, nil) // a signal ends it early; the caller checks the clock
}
