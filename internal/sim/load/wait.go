package load

import "time"

// waitUntil waits for an instant; false if stop was closed before. In a program
// that has nothing else to do the runtime's timers are late by up to a
// millisecond, so the last ones are slept by the kernel's.
func waitUntil(due time.Time, stop <-chan struct{}) bool {
	if coarse := time.Until(due) - sleepAtEnd; coarse > 0 {
		t := time.NewTimer(coarse)
		defer t.Stop()
		select {
		case <-t.C:
		case <-stop:
			return false
		}
	}
	sleep(time.Until(due))
	return true
}

// sleepAtEnd is how long before an instant the kernel takes over.
const sleepAtEnd = 2 * time.Millisecond
