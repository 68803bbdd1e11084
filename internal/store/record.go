package store

import (
	"context"

	"joinery"
)

// Record writes audit entries of custody events that change nothing else, such
// as the reading of an owner token. It returns nil only after they are on disk.
func (d *DB) Record(ctx context.Context, entries ...joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error { return t.audit(entries...) })
}
