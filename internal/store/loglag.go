package store

import (
	"context"

	"joinery"
)

// LogLag gives how far the custody log is behind its rows. A row counts from when
// it was written, or for a join from when the feed named it, which is some tenths
// of a second later.
func (d *DB) LogLag(ctx context.Context) (lag joinery.LogLag, err error) {
	err = d.snapshot(ctx, func(c conn) error {
		s, found, err := c.logState()
		if err != nil || !found {
			return err
		}
		lag.Size = s.Size
		if lag.Published, err = c.integer("SELECT checkpoint_size FROM log_state WHERE id = 1"); err != nil {
			return err
		}
		for _, oldest := range []struct {
			query string
			after int64
		}{
			{"SELECT at FROM audit WHERE id = ?", s.Audited + 1},
			{"SELECT at FROM event_page WHERE id = ?", s.Page + 1},
		} {
			_, err := c.one(oldest.query, func(r *row) error {
				if at := r.time(); lag.Waiting.IsZero() || at.Before(lag.Waiting) {
					lag.Waiting = at
				}
				return nil
			}, oldest.after)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return lag, err
}
