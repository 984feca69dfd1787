package load

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestQuantilesAreThoseOfTheSortedDurations(t *testing.T) {
	for seed := range uint64(5) {
		random := rand.New(rand.NewPCG(seed, 2))
		var whole, half Histogram
		var all []time.Duration
		for at := range 5000 {
			duration := time.Duration(math.Exp(random.Float64() * 25))
			all = append(all, duration)
			if at%2 == 0 {
				whole.Add(duration)
			} else {
				half.Add(duration)
			}
		}
		whole.Merge(&half)
		slices.Sort(all)
		for _, share := range []float64{0.001, 0.5, 0.9, 0.99, 0.999, 1} {
			want := all[int(math.Ceil(share*float64(len(all))))-1]
			got := whole.Quantile(share)
			if got < want || float64(got) > float64(want)*(1+1.0/512)+1 {
				t.Errorf("seed %d, quantile %v: got %d, want %d", seed, share, got, want)
			}
		}
		if whole.Quantile(1) != all[len(all)-1] || whole.total != 5000 {
			t.Errorf("the greatest is %d of %d", whole.Quantile(1), whole.total)
		}
	}
}

func TestBucketsLeaveNoGap(t *testing.T) {
	for bucket := range buckets - 1 {
		top := topOf(bucket)
		if top > math.MaxInt64 {
			break
		}
		if bucketOf(top) != bucket || bucketOf(top+1) != bucket+1 {
			t.Fatalf("bucket %d ends at %d, which lies in %d; the next value lies in %d", bucket, top, bucketOf(top), bucketOf(top+1))
		}
	}
	bucketOf(math.MaxInt64)
}

func TestAnEmptyHistogram(t *testing.T) {
	var none Histogram
	if none.Quantile(0.99) != 0 || none.Mean() != 0 {
		t.Error("an empty histogram has a quantile")
	}
	none.Add(-time.Second)
	if none.Quantile(1) != 0 {
		t.Error("a negative duration counts as more than none")
	}
}
