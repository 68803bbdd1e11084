package store

import (
	"crypto/sha256"
	"strings"
	"syscall"
	"testing"

	"joinery"
	"joinery/internal/tlog"
)

// loggedDatabase is the rich database with its custody log, of which one entry was
// erased.
func loggedDatabase(t *testing.T) string {
	t.Helper()
	o := Options{Path: richDatabase(t), UnsafeNoSync: true}
	d := mustOpen(t, o)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(d.BeginFeed(ctx))
	must(d.BeginLog(ctx, "log.example", sha256.Sum256(nil)))
	growLog(t, d)
	must(d.EraseEntry(ctx, joinery.AuditRef(erasable(t, d)), joinery.AuditEntry{At: testTime, Event: joinery.AuditEntryErased, Actor: "test"}))
	growLog(t, d)
	clean(t, d)
	must(d.EndFeed(ctx))
	sources, err := d.Sources(ctx)
	must(err)
	for _, s := range sources {
		_, err := d.RecoverFeed(ctx, s, 0)
		must(err)
		must(d.ForgetSource(ctx, s))
	}
	growLog(t, d)
	clean(t, d)
	must(d.Close())
	return o.Path
}

// erasable is an early audit row that nothing depends on.
func erasable(t *testing.T, d *DB) (number int64) {
	t.Helper()
	err := d.read(t.Context(), func(c conn) (err error) {
		number, err = c.integer("SELECT min(id) FROM audit WHERE event = 'device.claimed'")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return number
}

func growLog(t testing.TB, d *DB) {
	t.Helper()
	ctx := t.Context()
	if _, err := d.Sequence(ctx, false); err != nil {
		t.Fatal(err)
	}
	for more := true; more; {
		old, err := d.LogState(ctx)
		if err != nil {
			t.Fatal(err)
		}
		b, err := d.LogPending(ctx, old, pageRefs)
		if err != nil {
			t.Fatal(err)
		}
		var last joinery.LogBundle
		if list, err := d.LogBundles(ctx, old.Size/256, old.Size/256, 1); err == nil && len(list) == 1 {
			last = list[0]
		}
		builder, err := tlog.NewBuilder(old.Size, last, func(level int, index int64) ([]byte, error) { return d.LogTile(ctx, level, index) })
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range b.Leaves {
			builder.Add(l)
		}
		growth, size, root, err := builder.Finish()
		if err != nil {
			t.Fatal(err)
		}
		b.Next.Size, b.Next.Root = size, root
		if err := d.AppendLog(ctx, old, b, growth); err != nil {
			t.Fatal(err)
		}
		more = b.More
	}
}

// someImported is a device without a manifest entry that was never deleted.
const someImported = `(SELECT min(d.id) FROM device d WHERE d.imported IS NOT NULL AND d.deleted_at IS NULL
	AND NOT EXISTS (SELECT 1 FROM manifest_entry m WHERE m.device = d.id))`

// Whatever somebody changes in the log, or in a row that is in it, fsck finds
// (P8): also where the row fits together again.
func TestFsckFindsChangedLog(t *testing.T) {
	path := loggedDatabase(t)
	if found := corrupted(t, path, nil); len(found) > 0 {
		t.Fatal(found)
	}
	const otherLeaf = "x'01" + "00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF'"
	for _, c := range []struct{ name, rule, statement string }{
		{"an audit row made anew", "is the record of its row", "UPDATE audit SET leaf = " + otherLeaf + " WHERE id = 5"},
		{"an activation made anew", "is the record of its row", "UPDATE activation SET leaf = " + otherLeaf + " WHERE id = " + newestOfFirst},
		{"an activation deleted", "is a row that is there", "DELETE FROM activation WHERE id = " + newestOfFirst},
		{"the last audit row deleted", "is a row that is there", "DELETE FROM audit WHERE id = (SELECT max(id) FROM audit)"},
		{"an audit row emptied", "has a record of that", "UPDATE audit SET payload = NULL, salt = NULL WHERE id = (SELECT max(id) FROM audit WHERE event = 'device.claimed')"},
		{"an activation emptied", "has a record of that", "UPDATE activation SET payload = NULL, salt = NULL WHERE id = " + newestOfFirst},
		{"the record of an erasure gone", "has a record of that", "DELETE FROM log_erasure"},
		{"the record of an erasure another", "is one", "UPDATE log_erasure SET audit = 5"},
		{"the root", "its root is the hash", "UPDATE log_state SET root = zeroblob(32)"},
		{"the size", "leaves, of which", "UPDATE log_state SET size = size - 1"},
		{"audit rows that are counted twice", "once each", "UPDATE log_state SET audited = audited - 1"},
		{"a record in a bundle", "is the record of its row", "UPDATE log_bundle SET records = zeroblob(length(records))"},
		{"a bundle gone", "of which 0 are found", "DELETE FROM log_bundle"},
		{"places", "in which leaf an activation is", "DELETE FROM log_place WHERE kind = 2"},
		{"places of audit rows", "in which leaf an audit row is", "DELETE FROM log_place WHERE kind = 1"},
		{"an activation that nobody names", "named in the feed", "INSERT INTO activation (id, key_set, leaf) SELECT id + 1, key_set, leaf FROM activation WHERE id = " + newestOfFirst},
		{"the EUI of a device", "with which it was imported", "UPDATE device SET dev_eui = x'0102030405060708' WHERE id = " + someImported},
		{"another manifest entry", "with which it was imported", "INSERT INTO manifest_entry (device, org, serial, entry) SELECT id, org, 'x', x'01' FROM device WHERE id = " + someImported},
		{"a device of another import", "the entry of its import commits to it", "UPDATE device SET imported = imported - 1 WHERE id = " + someImported},
		{"the leaves of an import", "commits to its devices", "UPDATE import_run SET leaves = zeroblob(length(leaves)) WHERE leaves IS NOT NULL"},
		{"a number in a chain", "among those of its device", "UPDATE audit SET n = n + 1 WHERE id = (SELECT max(id) FROM audit WHERE n > 0)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, v := range corrupted(t, path, nil, c.statement) {
				if strings.Contains(v.Rule, c.rule) {
					return
				}
			}
			t.Errorf("not found: %s; found %v", c.rule, corrupted(t, path, nil, c.statement))
		})
	}
}

// BenchmarkLog is what a join costs in the custody log, database included, in
// batches as the sequencer makes them. By the clock it is mostly pauses: compare
// cpu-ns/join with what the join itself costs.
func BenchmarkLog(b *testing.B) {
	o := newOptions(b)
	o.UnsafeNoSync = false
	d := mustOpen(b, o)
	ctx := b.Context()
	if err := d.BeginFeed(ctx); err != nil {
		b.Fatal(err)
	}
	if err := d.BeginLog(ctx, "log.example", sha256.Sum256(nil)); err != nil {
		b.Fatal(err)
	}
	growLog(b, d)
	const batch = pageRefs
	joins := leafRows(b, d, b.N)
	used := func() (sum int64) {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	before := used()
	b.ResetTimer()
	for len(joins) > 0 {
		n := min(batch, len(joins))
		if err := d.do(ctx, func(t *tx) error { return t.nameJoins(joins[:n], false) }); err != nil {
			b.Fatal(err)
		}
		joins = joins[n:]
		growLog(b, d)
	}
	b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/join")
}
