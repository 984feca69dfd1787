package load

import (
	"math/bits"
	"time"
)

const (
	fineBits = 9 // a bucket is at most 1/512 of its value wide
	buckets  = (64 - fineBits) << fineBits
)

// Histogram counts durations in buckets that grow with their value; a quantile is at most 0.2 % too
// high, and never too low.
type Histogram struct {
	counts [buckets]uint64
	total  uint64
	sum    time.Duration
	max    time.Duration
}

func bucketOf(value uint64) int {
	if value < 2<<fineBits {
		return int(value)
	}
	shift := bits.Len64(value) - fineBits - 1
	return shift<<fineBits + int(value>>shift)
}

// topOf is the highest value of a bucket.
func topOf(bucket int) uint64 {
	if bucket < 2<<fineBits {
		return uint64(bucket)
	}
	shift := bucket>>fineBits - 1
	return (uint64(bucket-shift<<fineBits)+1)<<shift - 1
}

// Add counts a duration; a negative one, of a clock that was set back, counts as none.
func (h *Histogram) Add(duration time.Duration) {
	duration = max(duration, 0)
	h.counts[bucketOf(uint64(duration))]++
	h.total++
	h.sum += duration
	h.max = max(h.max, duration)
}

// Merge adds what another histogram has counted.
func (h *Histogram) Merge(other *Histogram) {
	for bucket, count := range other.counts {
		h.counts[bucket] += count
	}
	h.total += other.total
	h.sum += other.sum
	h.max = max(h.max, other.max)
}

// Quantile returns the smallest duration that at least this share of all durations do not exceed; 0
// without any.
func (h *Histogram) Quantile(share float64) time.Duration {
	rank := uint64(share * float64(h.total))
	if float64(rank) < share*float64(h.total) {
		rank++
	}
	var below uint64
	for bucket, count := range h.counts {
		below += count
		if count > 0 && below >= rank {
			return min(time.Duration(topOf(bucket)), h.max)
		}
	}
	return h.max
}

// Mean returns the mean; 0 without any duration.
func (h *Histogram) Mean() time.Duration {
	if h.total == 0 {
		return 0
	}
	return h.sum / time.Duration(h.total)
}
