package events

import (
	"crypto/rand"
	"encoding/binary"
	"time"

	"joinery"
)

// When a webhook whose deliveries fail is tried again, and when it is given up.
const (
	firstWait = 2 * time.Second
	longWait  = time.Hour
	// longMiss is the longest wait for a database in which nothing can be written:
	// that is no fault of the receiver's.
	longMiss = time.Minute
	// giveUpAfter is how long everything or something fails, with at least
	// giveUpTries tries: a clock that jumps is no reason. A receiver that asks for
	// long waits has few tries, and giveUpAnyway.
	giveUpAfter  = 72 * time.Hour
	giveUpTries  = 50
	giveUpAnyway = 7 * 24 * time.Hour
)

// wait is how long to wait after the nth failure in a row, n from 1: doubling
// from firstWait to longWait, each between half and one and a half of that, so
// that webhooks which failed together are not tried together for ever.
func wait(n uint32) time.Duration {
	d := longWait
	if shift := n - 1; shift < 16 {
		d = min(longWait, firstWait<<shift)
	}
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return d/2 + time.Duration(binary.BigEndian.Uint64(b[:])%uint64(d))
}

// longest is how far ahead a next try can be: what a receiver may ask for, and
// some more. What is further comes of a clock that went back.
const longest = 25 * time.Hour

// due tells whether w may be tried.
func due(w joinery.Webhook, now time.Time) bool { return reached(w.NextAt, now) }

// reached tells whether a time has come; zero always has.
func reached(at, now time.Time) bool {
	ahead := at.Sub(now)
	return at.IsZero() || ahead <= 0 || ahead > longest
}

// hopeless tells whether w is to be switched off.
func hopeless(p joinery.WebhookProgress, now time.Time) bool {
	failing := now.Sub(p.FailingSince)
	return !p.FailingSince.IsZero() && failing >= giveUpAfter && (p.Attempts >= giveUpTries || failing >= giveUpAnyway)
}
