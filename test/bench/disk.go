package main

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"joinery/internal/sim/load"
)

// The disk by itself: what a join at ease writes, as often as the open loop asks,
// in the file of a log that exists already. No join is answered before such a sync,
// so this is what is below the latency of joins on this machine.

const (
	logSize    = 16 << 20 // written over and over, as a write-ahead log is
	joinWrites = 16 << 10 // four pages
)

// syncs measures how long the disk takes, in milliseconds.
func (s *stage) syncs(ctx context.Context, d time.Duration) (p50, p99 float64, err error) {
	f, err := os.CreateTemp(s.dir, "disk-*")
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	if _, err := f.Write(make([]byte, logSize)); err != nil {
		return 0, 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, 0, err
	}
	turn := time.NewTicker(time.Second / openRate)
	defer turn.Stop()
	var took load.Histogram
	page := make([]byte, joinWrites)
	for at, end := int64(0), time.Now().Add(d); time.Now().Before(end); at = (at + joinWrites) % logSize {
		select {
		case <-turn.C:
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
		if _, err := f.WriteAt(page, at); err != nil {
			return 0, 0, err
		}
		began := time.Now()
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, 0, err
		}
		took.Add(time.Since(began))
	}
	return milliseconds(took.Quantile(.50)), milliseconds(took.Quantile(.99)), nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
