// Package rotation seals imported root keys anew, under newer storage keys, while
// joins go on. Whoever holds the custody key opens the custody blobs, in a process
// that is no server, and hands the keys in as an import does: sealed to the
// transport key. What is stored says by itself which key sets are left, so that it
// may end at any point and go on from anywhere.
package rotation

import (
	"context"
	"errors"
	"strconv"
	"time"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/seal"
)

// MaxRows is the most key sets that are listed, or sealed anew, at once.
const MaxRows = 500

// Store keeps sealed root keys.
type Store interface {
	StoredRoots(ctx context.Context, after joinery.KeySetID, limit int) ([]joinery.StoredRoots, error)
	RootsOf(ctx context.Context, ids []joinery.KeySetID) ([]joinery.StoredRoots, error)
	EachRootHead(ctx context.Context, fn func(nwk, app joinery.SealedRoot)) error
	ReplaceRoots(ctx context.Context, list []joinery.NewRoots, entry func(changed int) joinery.AuditEntry) (int, error)
}

// Keyring seals.
type Keyring interface {
	Generations() keyring.Generations
	Rewrap(ctx context.Context, h seal.Header, in []keyring.RewrapIn) ([]keyring.RootsOut, error)
}

// Service is the rules of rotation.
type Service struct {
	store Store
	keys  Keyring
	now   func() time.Time
}

// New makes a Service.
func New(store Store, keys Keyring, now func() time.Time) *Service { return &Service{store, keys, now} }

// Progress is how far the stored root keys are.
type Progress struct {
	Generations keyring.Generations
	KeySets     int64 // that have imported root keys
	Behind      int64 // of them, that are not under the newest generations
	// JoinKEK and Custody count key sets by the oldest generation that one of their
	// keys is under.
	JoinKEK, Custody map[uint32]int64
}

// Progress tells how far the stored root keys are. It looks at every one.
func (s *Service) Progress(ctx context.Context, caller joinery.Caller) (p Progress, err error) {
	if err := caller.RequireOperator(); err != nil {
		return p, err
	}
	p = Progress{Generations: s.keys.Generations(), JoinKEK: map[uint32]int64{}, Custody: map[uint32]int64{}}
	err = s.store.EachRootHead(ctx, func(nwk, app joinery.SealedRoot) {
		p.KeySets++
		if !p.Generations.Current(nwk) || !p.Generations.Current(app) {
			p.Behind++
		}
		p.JoinKEK[oldest(nwk.Use, app.Use)]++
		p.Custody[oldest(nwk.Custody, app.Custody)]++
	})
	return p, err
}

// oldest is the lower generation of two blobs of which one may be missing.
func oldest(a, b joinery.Sealed) uint32 {
	switch {
	case len(a) == 0:
		return keyring.GenerationOf(b)
	case len(b) == 0:
		return keyring.GenerationOf(a)
	}
	return min(keyring.GenerationOf(a), keyring.GenerationOf(b))
}

// Behind lists key sets above after whose root keys are not under the newest
// generations, in order of their ids, of the next limit that there are. next is
// from where to go on; zero where there are no more.
func (s *Service) Behind(ctx context.Context, caller joinery.Caller, after joinery.KeySetID, limit int) (list []joinery.StoredRoots, next joinery.KeySetID, err error) {
	if err := caller.RequireSocket(); err != nil {
		return nil, 0, err
	}
	limit = min(max(limit, 1), MaxRows)
	all, err := s.store.StoredRoots(ctx, after, limit)
	if err != nil {
		return nil, 0, err
	}
	g := s.keys.Generations()
	for _, r := range all {
		if !g.Current(r.Nwk) || !g.Current(r.App) {
			list = append(list, r)
		}
	}
	if len(all) == limit {
		next = all[len(all)-1].KeySet
	}
	return list, next, nil
}

// Row is the root keys of one key set, as the holder of the custody key sealed
// them to the transport key.
type Row struct {
	KeySet joinery.KeySetID
	Row    seal.SealedRow
}

// Outcome is what became of a run of rows.
type Outcome struct {
	Changed int
	// Skipped are those whose key set is gone, is done already or was changed
	// meanwhile.
	Skipped int
	// Failed are those whose keys are not the ones stored, or do not open.
	Failed []joinery.KeySetID
}

// Rewrap seals the root keys in rows anew and stores them, in one transaction. A
// key set that was handed in before changes nothing.
func (s *Service) Rewrap(ctx context.Context, caller joinery.Caller, h seal.Header, rows []Row) (o Outcome, err error) {
	if err := caller.RequireSocket(); err != nil {
		return o, err
	}
	if len(rows) > MaxRows {
		return o, joinery.Errorf(joinery.CodeInvalid, "more than %d key sets at once", MaxRows)
	}
	in, err := s.behind(ctx, rows)
	if err != nil {
		return o, err
	}
	var fresh []joinery.NewRoots
	if len(in) > 0 {
		if fresh, o.Failed, err = s.seal(ctx, h, in); err != nil {
			return o, err
		}
	}
	if len(fresh) > 0 {
		g := s.keys.Generations()
		o.Changed, err = s.store.ReplaceRoots(ctx, fresh, func(changed int) joinery.AuditEntry { return s.entry(caller, g, changed) })
	}
	o.Skipped = len(rows) - o.Changed - len(o.Failed)
	return o, err
}

// behind finds what is stored of rows and not current yet.
func (s *Service) behind(ctx context.Context, rows []Row) (in []keyring.RewrapIn, err error) {
	byID := map[joinery.KeySetID]seal.SealedRow{}
	var ids []joinery.KeySetID
	for _, r := range rows {
		if _, twice := byID[r.KeySet]; !twice {
			ids = append(ids, r.KeySet)
		}
		byID[r.KeySet] = r.Row
	}
	stored, err := s.store.RootsOf(ctx, ids)
	if err != nil {
		return nil, err
	}
	g := s.keys.Generations()
	for _, r := range stored {
		if !g.Current(r.Nwk) || !g.Current(r.App) {
			in = append(in, keyring.RewrapIn{Stored: r, Row: byID[r.KeySet]})
		}
	}
	return in, nil
}

func (s *Service) seal(ctx context.Context, h seal.Header, in []keyring.RewrapIn) (fresh []joinery.NewRoots, failed []joinery.KeySetID, err error) {
	out, err := s.keys.Rewrap(ctx, h, in)
	if err != nil {
		return nil, nil, keyringError(err)
	}
	for i, made := range out {
		old := in[i].Stored
		if made.Err != nil {
			failed = append(failed, old.KeySet)
			continue
		}
		fresh = append(fresh, joinery.NewRoots{
			KeySet: old.KeySet, OldNwk: old.Nwk, OldApp: old.App, Nwk: made.Nwk, App: made.App,
		})
	}
	return fresh, failed, nil
}

func keyringError(err error) error {
	switch {
	case errors.Is(err, keyring.ErrTransport):
		return joinery.WrapError(joinery.CodeInvalid, err, "the rows are not sealed to this server's transport key; read that anew")
	case errors.Is(err, keyring.ErrNotServed):
		return joinery.WrapError(joinery.CodeConflict, err, "this server's token keeps no imported root keys")
	case errors.Is(err, keyring.ErrToken):
		return joinery.WrapError(joinery.CodeUnavailable, err, "the keyring does not answer; try again")
	}
	return err
}

func (s *Service) entry(caller joinery.Caller, g keyring.Generations, changed int) joinery.AuditEntry {
	return joinery.AuditEntry{
		At: s.now().UTC().Truncate(time.Millisecond), Event: joinery.AuditRootsRewrapped, Actor: caller.Name,
		Detail: map[string]string{
			"key_sets": strconv.Itoa(changed), "join_kek": strconv.FormatUint(uint64(g.Newest()), 10), "custody": strconv.FormatUint(uint64(g.Custody), 10),
		},
	}
}
