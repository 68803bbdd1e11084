package soft

import (
	"fmt"
	"os"
	"syscall"
)

// openLocked opens a file and waits until no other process that changes it has
// it open this way. Closing it lets the next one in. What is behind the path may
// have been replaced while it waited, so it looks again.
func openLocked(path string) (*os.File, error) {
	for {
		f, err := openRegular(path)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("%s: lock: %w", path, err)
		}
		held, err := f.Stat()
		if err != nil {
			_ = f.Close()
			return nil, err
		}
		now, err := os.Stat(path)
		if err != nil {
			_ = f.Close()
			return nil, explainOpen(path, err)
		}
		if os.SameFile(held, now) {
			return f, nil
		}
		_ = f.Close()
	}
}
