package load

import (
	"math/bits"
	"time"
)

// Histogram counts durations in buckets that grow with them: to 128 ns below
// 16 µs, within 1 % above. The zero value is ready for use and takes 24 KiB.
type Histogram struct {
	counts [buckets]uint64
	n      uint64
	max    time.Duration
}

// A bucket is named by the octave of a duration and the next subBits bits below
// its highest one. The unit is 128 ns, so the last octave ends after 2 minutes.
const (
	unit       = 128 * time.Nanosecond
	subBits    = 7
	subBuckets = 1 << subBits
	octaves    = 23
	buckets    = (octaves + 1) * subBuckets
)

// Add counts one duration.
func (h *Histogram) Add(d time.Duration) {
	h.counts[bucketOf(d)]++
	h.n++
	h.max = max(h.max, d)
}

func bucketOf(d time.Duration) int {
	v := uint64(max(d, 0) / unit)
	if v < subBuckets {
		return int(v)
	}
	octave := bits.Len64(v) - subBits // 1 for the first that is not exact
	if octave > octaves {
		return buckets - 1
	}
	return octave*subBuckets + int(v>>(octave-1))&(subBuckets-1)
}

// upper gives the largest duration of a bucket.
func upper(bucket int) time.Duration {
	octave, sub := bucket/subBuckets, uint64(bucket%subBuckets)
	if octave == 0 {
		return time.Duration(sub+1)*unit - 1
	}
	return time.Duration((subBuckets+sub+1)<<(octave-1))*unit - 1
}

// Merge adds what other counted.
func (h *Histogram) Merge(other *Histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.n += other.n
	h.max = max(h.max, other.max)
}

// Len gives how many durations were counted.
func (h *Histogram) Len() uint64 { return h.n }

// Max gives the longest one.
func (h *Histogram) Max() time.Duration { return h.max }

// Quantile gives the duration that the part q of all did not exceed, rounded up
// to the end of its bucket; 0 where nothing was counted.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := max(uint64(q*float64(h.n)+0.5), 1)
	var seen uint64
	for i, n := range h.counts {
		if seen += n; seen >= rank {
			return min(upper(i), h.max)
		}
	}
	return h.max
}
