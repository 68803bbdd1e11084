package joinery

import (
	"errors"
	"time"
)

// later is an error that passes.
type later struct {
	error
	after time.Duration
}

// Unwrap gives the error itself.
func (l later) Unwrap() error { return l.error }

// Later makes err tell after what time asking again may help.
func Later(err error, after time.Duration) error { return later{err, after} }

// RetryAfter gives after what time asking again may help; 0: err does not tell.
func RetryAfter(err error) time.Duration {
	if l, ok := errors.AsType[later](err); ok {
		return l.after
	}
	return 0
}
