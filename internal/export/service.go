package export

import (
	"context"
	"log/slog"
	"time"

	"joinery"
	"joinery/internal/exportfile"
)

// Store is the state that these rules need. Changes write their audit entries in
// the same transaction and return nil only after it is durable. See the methods of
// the same names of the store.
type Store interface {
	Recipients
	Policies
	Requests
	Work
	Devices
}

// Recipients keeps whom root keys may be exported to.
type Recipients interface {
	// AddRecipient is CodeConflict where there is one of that name or key, or most
	// already.
	AddRecipient(ctx context.Context, r joinery.Recipient, most int, a joinery.AuditEntry) error
	// RemoveRecipient withdraws what is being exported to it.
	RemoveRecipient(ctx context.Context, id joinery.RecipientID, a joinery.AuditEntry) error
	// Recipient finds a removed one, too; CodeNotFound.
	Recipient(ctx context.Context, id joinery.RecipientID) (joinery.Recipient, error)
	Recipients(ctx context.Context, org joinery.OrgID) ([]joinery.Recipient, error)
}

// Policies keeps who has to agree.
type Policies interface {
	ExportPolicy(ctx context.Context, org joinery.OrgID) (joinery.ExportPolicy, error)
	// SetExportPolicy is CodeConflict where the policy is not seen any more.
	SetExportPolicy(ctx context.Context, p, seen joinery.ExportPolicy, a joinery.AuditEntry) error
	Members(ctx context.Context, org joinery.OrgID) ([]joinery.Member, error)
	Orgs(ctx context.Context) ([]joinery.Organisation, error)
}

// Requests keeps exports.
type Requests interface {
	BeginExport(ctx context.Context, e joinery.Export) error
	// AddExportDevices takes all or none; CodeNotFound where one is another's.
	AddExportDevices(ctx context.Context, id joinery.ExportID, devices []joinery.DeviceID) (joinery.Export, error)
	// FixExportSet says which devices the export has, and keeps what proves it of each.
	FixExportSet(ctx context.Context, id joinery.ExportID) (joinery.DeviceSet, error)
	ExportDigest(ctx context.Context, id joinery.ExportID) (digest [32]byte, devices int64, err error)
	// MoveExport is CodeConflict where the export is in none of the states of from.
	MoveExport(ctx context.Context, e joinery.Export, from []joinery.ExportState, entries ...joinery.AuditEntry) error
	RequestReader
}

// RequestReader finds exports.
type RequestReader interface {
	Export(ctx context.Context, id joinery.ExportID) (joinery.Export, error)
	Exports(ctx context.Context, q joinery.ExportQuery) ([]joinery.Export, error)
	ExportItems(ctx context.Context, id joinery.ExportID, from uint64, limit int) ([]joinery.ExportItem, error)
	ExportBlobs(ctx context.Context, id joinery.ExportID, from uint64, skip, limit int) ([]joinery.WrappedItem, error)
	DueExports(ctx context.Context, by time.Time) ([]joinery.Export, error)
}

// Work is what the custody process does, and what is cleared behind it.
type Work interface {
	ExportWork(ctx context.Context, id joinery.ExportID, from uint64, limit int) ([]joinery.ExportItem, []joinery.ActivationState, error)
	// StartExport fixes the first line of the file, once.
	StartExport(ctx context.Context, id joinery.ExportID, header []byte) (joinery.Export, error)
	// CommitExport writes each disclosure in the transaction that stores what was
	// wrapped.
	CommitExport(ctx context.Context, id joinery.ExportID, items []joinery.WrappedItem, expires time.Time, exposed, ready joinery.AuditEntry) (joinery.Export, error)
	// ClearExports deletes what was wrapped in exports that ended, some at a time.
	ClearExports(ctx context.Context) (more bool, err error)
}

// Devices finds devices.
type Devices interface {
	Devices(ctx context.Context, q joinery.DeviceQuery) (joinery.DevicePage, error)
	Device(ctx context.Context, id joinery.DeviceID) (joinery.ActivationState, error)
	// Labelled finds many, in the order of refs; absent ones have no id.
	Labelled(ctx context.Context, refs []joinery.DeviceRef) ([]joinery.Labelled, error)
	Disclosures(ctx context.Context, id joinery.DeviceID) ([]joinery.Disclosure, error)
}

// How long an export may stand in each state before it ends by itself.
const (
	collectFor = 24 * time.Hour
	waitFor    = 7 * 24 * time.Hour  // for the other person
	custodyFor = 30 * 24 * time.Hour // for the custody key
	readyFor   = 7 * 24 * time.Hour  // for its download
	// thinkFor is how long a weaker policy takes to hold, and for how long nobody
	// counts as alone after another admin left.
	thinkFor = 24 * time.Hour
)

// Options are what a Service may be given besides its parts.
type Options struct {
	// Server is this server's name, as it stands in the files.
	Server string
	Now    func() time.Time // nil is the system's clock
	Log    *slog.Logger
	// Signers gives the keys that sign exports or once did, the newest last; nil: none.
	Signers func() []exportfile.Signer
	// Hold is why nothing is to be disclosed now, nil for no reason: a copy of a
	// database may know of an export that was withdrawn since.
	Hold func() error
}

// Service is the rules of this package. It is safe for concurrent use.
type Service struct {
	store  Store
	server string
	now    func() time.Time
	log    *slog.Logger
	hold   func() error
	sign   func() []exportfile.Signer
	wake   chan struct{}
}

// New makes a Service.
func New(store Store, opt Options) *Service {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Hold == nil {
		opt.Hold = func() error { return nil }
	}
	if opt.Signers == nil {
		opt.Signers = func() []exportfile.Signer { return nil }
	}
	if opt.Server == "" {
		opt.Server = "joinery"
	}
	return &Service{store: store, server: opt.Server, now: opt.Now, log: opt.Log, hold: opt.Hold, sign: opt.Signers, wake: make(chan struct{}, 1)}
}

// Signers gives this server's name, as it stands in files, and the keys that sign its
// exports or once did, the newest, which signs, last: for whoever holds a file of an
// earlier time.
func (s *Service) Signers() (server string, list []exportfile.Signer) { return s.server, s.sign() }

// Approved holds a token when an export was approved since it was last taken.
func (s *Service) Approved() <-chan struct{} { return s.wake }

func (s *Service) tellApproved() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Service) time() time.Time { return s.now().UTC().Truncate(time.Millisecond) }

func notFound(what string) error { return joinery.Errorf(joinery.CodeNotFound, "no such %s", what) }

// acting gives the organisation for which the caller acts.
func (s *Service) acting(ctx context.Context, caller joinery.Caller) (joinery.OrgID, error) {
	orgs, err := s.store.Orgs(ctx)
	if err != nil {
		return 0, err
	}
	return caller.ActingFor(0, orgs)
}

// own finds an export of the organisation for which the caller acts; another's is
// absent. The server's operator has no right of his own to what is exported: he
// acts for the organisation by name, and that stands in the log.
func (s *Service) own(ctx context.Context, caller joinery.Caller, id joinery.ExportID) (joinery.Export, error) {
	org, err := s.acting(ctx, caller)
	if err != nil {
		return joinery.Export{}, err
	}
	e, err := s.store.Export(ctx, id)
	if joinery.CodeOf(err) == joinery.CodeNotFound || err == nil && e.Org != org {
		return joinery.Export{}, notFound("export")
	}
	return e, err
}

func (s *Service) entry(caller joinery.Caller, event joinery.AuditEvent, org joinery.OrgID, detail map[string]string) joinery.AuditEntry {
	return joinery.AuditEntry{At: s.time(), Event: event, Actor: caller.Name, Org: org, Detail: detail}
}
