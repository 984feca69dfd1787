//go:build !linux

package load

import "time"

func sleep(duration time.Duration) { time.Sleep(duration) }
