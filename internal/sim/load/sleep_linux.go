package load

import (
	"syscall"
	"time"
)

// sleep sleeps in the kernel: some 60 µs late instead of up to 1 ms. A signal
// ends it early, so it looks at the clock again.
func sleep(d time.Duration) {
	for end := time.Now().Add(d); d > 0; d = time.Until(end) {
		ts := syscall.NsecToTimespec(int64(d))
		if err := syscall.Nanosleep(&ts, nil); err != nil && err != syscall.EINTR { //nolint:errorlint // an errno, bare
			time.Sleep(d)
		}
	}
}
