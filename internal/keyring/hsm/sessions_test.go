package hsm_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"joinery/internal/keyring"
	"joinery/internal/keyring/hsm"
)

// How many sessions there are is set, or follows from how fast the token answers.
func TestSessionsFitTheToken(t *testing.T) {
	for _, c := range []struct {
		set   int
		delay time.Duration
		want  int
	}{{3, 0, 3}, {0, time.Millisecond, 16}, {256, 0, 256}} {
		opt := sharedOptions(t)
		opt.Sessions, opt.Delay = c.set, c.delay
		token, err := hsm.Open(context.Background(), opt)
		if err != nil {
			t.Fatal(err)
		}
		if token.Sessions() != c.want {
			t.Errorf("set %d, delay %v: %d sessions; want %d", c.set, c.delay, token.Sessions(), c.want)
		}
		if err := token.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, n := range []int{-1, 257} {
		opt := sharedOptions(t)
		opt.Sessions = n
		if _, err := hsm.Open(context.Background(), opt); !errors.Is(err, keyring.ErrRequest) {
			t.Errorf("%d sessions: %v", n, err)
		}
	}
}
