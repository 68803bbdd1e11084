package custodylog

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"joinery"
	"joinery/auditlog"
	"joinery/internal/tlog"

	"golang.org/x/mod/sumdb/note"
)

// Store is the state behind this package.
type Store interface {
	Tree
	Rows
	Published
	Records
}

// Tree grows and is read.
type Tree interface {
	// BeginLog does nothing where the log was begun.
	BeginLog(ctx context.Context, origin string, empty [32]byte) error
	LogState(ctx context.Context) (joinery.LogState, error)
	// LogPending gives what comes next, each row once, in one order for ever.
	LogPending(ctx context.Context, s joinery.LogState, limit int) (joinery.LogBatch, error)
	// AppendLog moves state and tree together; CodeConflict where the state is not
	// old any more.
	AppendLog(ctx context.Context, old joinery.LogState, b joinery.LogBatch, growth joinery.LogGrowth) error
	LogBundles(ctx context.Context, from, to int64, limit int) ([]joinery.LogBundle, error)
	LogTile(ctx context.Context, level int, index int64) ([]byte, error)
}

// Rows is what the leaves are.
type Rows interface {
	// CustodyDevice gives who has and had a device, deleted or not; CodeNotFound.
	CustodyDevice(ctx context.Context, id joinery.DeviceID) (joinery.CustodyDevice, error)
	// CustodyEntries leaves nothing out.
	CustodyEntries(ctx context.Context, q joinery.CustodyQuery) ([]joinery.CustodyEntry, error)
	// DeviceSets shows of a device that it is in sets of exports and batches.
	DeviceSets(ctx context.Context, device joinery.DeviceID, subjects []int64) ([]auditlog.Set, error)
	// LinkEntries gives the links in the chain of a device's owners, oldest first.
	LinkEntries(ctx context.Context, id joinery.DeviceID) ([]joinery.CustodyEntry, error)
	// StateProvenance writes how that chain stands; CodeNotFound unless owner holds
	// the device.
	StateProvenance(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, at time.Time) error
	LogEntry(ctx context.Context, ref joinery.LogRef) (joinery.CustodyEntry, error)
	EraseEntry(ctx context.Context, ref joinery.LogRef, a joinery.AuditEntry) error
}

// Published is what the public has.
type Published interface {
	LogCheckpoint(ctx context.Context) (joinery.LogCheckpoint, error)
	// SaveCheckpoint never goes back.
	SaveCheckpoint(ctx context.Context, p joinery.LogCheckpoint) error
	// LogLag is how far tree and checkpoint are behind.
	LogLag(ctx context.Context) (joinery.LogLag, error)
	LogLines(ctx context.Context) ([]joinery.LogLine, error)
	WitnessSize(ctx context.Context, name string, line int) (int64, error)
	SaveWitnessSize(ctx context.Context, name string, line int, size int64) error
}

// Keys signs checkpoints; see keyring.Keyring.
type Keys interface {
	LogKey(ctx context.Context, generation uint32) ([]byte, error)
	SignCheckpoint(ctx context.Context, generation uint32, text []byte) ([]byte, error)
}

// Witness is somebody who follows the log and signs what they saw of it
// (c2sp.org/tlog-witness).
type Witness struct {
	URL string // of the witness; "/add-checkpoint" is added
	Key string // NAME+HASH+BASE64 of c2sp.org/tlog-cosignature
}

// Options are what a Service may be given besides its parts.
type Options struct {
	// Origin names the log where it begins; later it has the name that it has.
	Origin    string
	Witnesses []Witness
	// Every is how often the leader looks for rows; 0 is each second. Checkpoints of
	// a log with witnesses come every five times that.
	Every time.Duration
	Log   *slog.Logger
	Now   func() time.Time
	// Hold is why the log does not grow now: a copy must not speak for the database
	// that it was copied from.
	Hold func() error
	// HTTP asks witnesses; nil is a client of its own.
	HTTP *http.Client
}

// keyGeneration is that of the log's key.
const keyGeneration = 1

// Service is the rules of this package. It is safe for concurrent use.
type Service struct {
	store     Store
	keys      Keys
	opt       Options
	witnesses []witness

	mu     sync.Mutex
	public []byte // of the log's key, once it was asked for

	stats stats
}

// New makes a Service. It fails for a witness's key that is none.
func New(store Store, keys Keys, opt Options) (*Service, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Hold == nil {
		opt.Hold = func() error { return nil }
	}
	if opt.Every == 0 {
		opt.Every = time.Second
	}
	if opt.HTTP == nil {
		opt.HTTP = &http.Client{Timeout: witnessTimeout}
	}
	s := &Service{store: store, keys: keys, opt: opt}
	for _, w := range opt.Witnesses {
		verifier, err := auditlog.NewWitness(w.Key)
		if err != nil {
			return nil, fmt.Errorf("witness %s: %w", w.URL, err)
		}
		s.witnesses = append(s.witnesses, witness{w.URL, verifier})
		s.stats.witness(verifier.Name())
	}
	return s, nil
}

// Begin begins the log, unless it was begun.
func (s *Service) Begin(ctx context.Context) error {
	return s.store.BeginLog(ctx, s.opt.Origin, sha256.Sum256(nil))
}

// Run puts rows into the tree and signs checkpoints until ctx ends. One server
// calls it, which leads; where two do the tree is still one.
func (s *Service) Run(ctx context.Context) {
	clock := time.NewTicker(s.opt.Every)
	defer clock.Stop()
	var failing string
	for turn := 0; ; turn++ {
		err := s.turn(ctx, len(s.witnesses) == 0 || turn%5 == 0)
		if err != nil && ctx.Err() == nil {
			s.stats.failed.Add(1)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failing = ""
		case failing != err.Error():
			failing = err.Error()
			s.opt.Log.Warn("the custody log does not grow now; rows wait in the database", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-clock.C:
		}
	}
}

func (s *Service) turn(ctx context.Context, publish bool) error {
	if s.opt.Hold() != nil {
		return nil
	}
	if err := s.CatchUp(ctx); err != nil || !publish {
		return err
	}
	return s.Publish(ctx)
}

// CatchUp puts all that waits into the tree.
func (s *Service) CatchUp(ctx context.Context) error {
	for more := true; more; {
		var err error
		if more, err = s.Round(ctx); err != nil {
			return err
		}
	}
	return nil
}

// batchLeaves bounds what one transaction puts into the tree: about a millisecond
// in which no join is committed.
const batchLeaves = 1024

// Round puts the next rows into the tree and tells whether more wait. What is
// computed is computed outside of the transaction; that compares and swaps.
func (s *Service) Round(ctx context.Context) (more bool, err error) {
	old, err := s.store.LogState(ctx)
	if err != nil {
		return false, err
	}
	b, err := s.store.LogPending(ctx, old, batchLeaves)
	if err != nil || b.Next == old {
		return false, err
	}
	var growth joinery.LogGrowth
	if len(b.Leaves) > 0 {
		if growth, err = s.grow(ctx, old, &b); err != nil {
			return false, err
		}
	}
	return b.More, s.store.AppendLog(ctx, old, b, growth)
}

func (s *Service) grow(ctx context.Context, old joinery.LogState, b *joinery.LogBatch) (growth joinery.LogGrowth, err error) {
	var last joinery.LogBundle
	if old.Size%tlog.Width != 0 {
		list, err := s.store.LogBundles(ctx, old.Size/tlog.Width, old.Size/tlog.Width, 1)
		if err != nil {
			return growth, err
		}
		if len(list) == 1 {
			last = list[0]
		}
	}
	builder, err := tlog.NewBuilder(old.Size, last, func(level int, index int64) ([]byte, error) { return s.store.LogTile(ctx, level, index) })
	if err != nil {
		return growth, err
	}
	for _, l := range b.Leaves {
		builder.Add(l)
	}
	growth, b.Next.Size, b.Next.Root, err = builder.Finish()
	return growth, err
}

// Publish signs a checkpoint of the tree, which is on disk, unless there is one of
// its size.
func (s *Service) Publish(ctx context.Context) error {
	state, err := s.store.LogState(ctx)
	if err != nil {
		return err
	}
	newest, err := s.store.LogCheckpoint(ctx)
	switch {
	case err == nil && newest.Line == state.Line && newest.Size == state.Size:
		return nil
	case err != nil && joinery.CodeOf(err) != joinery.CodeNotFound:
		return err
	}
	c := auditlog.Checkpoint{Origin: auditlog.LineName(state.Origin, state.Line), Size: state.Size, Root: state.Root}
	lines, err := s.store.LogLines(ctx)
	if err != nil {
		return err
	}
	for _, l := range lines {
		c.Continues = append(c.Continues, auditlog.Line{Origin: l.Origin, Size: l.Size, Root: l.Root})
	}
	signed, err := s.sign(ctx, c)
	if err != nil {
		return err
	}
	signed = s.cosign(ctx, state, c, signed)
	if err := s.store.SaveCheckpoint(ctx, joinery.LogCheckpoint{Line: state.Line, Size: state.Size, Note: string(signed)}); err != nil {
		return err
	}
	s.stats.publishedAt.Store(s.opt.Now().UnixMilli())
	return nil
}

// Key is the log's public key under the name of the log.
func (s *Service) Key(ctx context.Context) (auditlog.Key, error) {
	state, err := s.store.LogState(ctx)
	if err != nil {
		return auditlog.Key{}, err
	}
	public, err := s.publicKey(ctx)
	return auditlog.NewKey(state.Origin, public), err
}

func (s *Service) publicKey(ctx context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.public == nil {
		public, err := s.keys.LogKey(ctx, keyGeneration)
		if err != nil {
			return nil, joinery.WrapError(joinery.CodeUnavailable, err, "the log's key cannot be used now; try again later")
		}
		s.public = public
	}
	return s.public, nil
}

// signer signs a note with the log's key.
type signer struct {
	note.Verifier
	sign func(msg []byte) ([]byte, error)
}

// Sign implements note.Signer.
func (s signer) Sign(msg []byte) ([]byte, error) { return s.sign(msg) }

func (s *Service) sign(ctx context.Context, c auditlog.Checkpoint) ([]byte, error) {
	public, err := s.publicKey(ctx)
	if err != nil {
		return nil, err
	}
	verifier, err := note.NewVerifier(auditlog.NewKey(c.Origin, public).String())
	if err != nil {
		return nil, err
	}
	return note.Sign(&note.Note{Text: string(c.Text())}, signer{verifier, func(msg []byte) ([]byte, error) {
		return s.keys.SignCheckpoint(ctx, keyGeneration, msg)
	}})
}

// source reads the tree from the store.
type source struct {
	ctx   context.Context
	store Tree
}

// Records implements tlog.Source.
func (s source) Records(index int64) ([]byte, error) {
	list, err := s.store.LogBundles(s.ctx, index, index, 1)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("%w: bundle %d is missing", tlog.ErrDamaged, index)
	}
	if err != nil {
		return nil, err
	}
	return list[0].Records, nil
}

// Hashes implements tlog.Source.
func (s source) Hashes(level int, index int64) ([]byte, error) {
	hashes, err := s.store.LogTile(s.ctx, level, index)
	if joinery.CodeOf(err) == joinery.CodeNotFound {
		err = fmt.Errorf("%w: tile %d of level %d is missing", tlog.ErrDamaged, index, level)
	}
	return hashes, err
}

func (s *Service) tree(ctx context.Context, size int64) *tlog.Tree {
	return tlog.NewTree(size, source{ctx, s.store})
}
