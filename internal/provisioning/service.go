package provisioning

import (
	"context"
	"crypto/sha256"
	"slices"
	"time"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// Store holds imports. See the methods of the same names of the store.
type Store interface {
	// BeginImport finds the import of the same organisation, kind and hash, or
	// makes it.
	BeginImport(ctx context.Context, i joinery.Import) (joinery.Import, error)
	// Import fails with CodeNotFound.
	Import(ctx context.Context, id joinery.ImportID) (joinery.Import, error)
	// CommitRows takes rows in one transaction and gives the fate of each;
	// CodeConflict where they do not begin at the import's Next.
	CommitRows(ctx context.Context, rows joinery.ImportRows, entry joinery.AuditEntry) ([]joinery.RowResult, error)
	// ImportErrors gives failed rows with an index above after, by index; 0 is
	// from the beginning, row 0 included.
	ImportErrors(ctx context.Context, id joinery.ImportID, after uint64, limit int) ([]joinery.RowResult, error)
	// ImportedDevices gives at most limit devices of rows, by index, from row from
	// on; next is where the next page begins, 0 for none.
	ImportedDevices(ctx context.Context, id joinery.ImportID, from uint64, limit int) (devices []joinery.ImportedDevice, next uint64, err error)
}

// Registry is who may import what; LoadActivation tells a dry run which devices
// are there (CodeUnknownDevice).
type Registry interface {
	Orgs(ctx context.Context) ([]joinery.Organisation, error)
	Ranges(ctx context.Context) ([]joinery.JoinEUIRange, error)
	Signers(ctx context.Context) ([]joinery.Signer, error)
	LoadActivation(ctx context.Context, joinEUI, devEUI lorawan.EUI64) (joinery.ActivationState, error)
}

// Keys is custody of root keys.
type Keys interface {
	// SealRoots opens roots that were sealed to the transport key and seals each
	// to its key set. An error is about the whole batch: keyring.ErrTransport
	// where the header is not for this server. RootsOut.Err is about one row.
	SealRoots(ctx context.Context, h seal.Header, in []keyring.RootsIn) ([]keyring.RootsOut, error)
	Masters() []keyring.Master
}

// Service is the rules of this package. It is safe for concurrent use.
type Service struct {
	store    Store
	registry Registry
	keys     Keys
	now      func() time.Time
	dry      dryRuns
	turns    turns
}

// New makes a Service.
func New(store Store, registry Registry, keys Keys) *Service {
	return &Service{store: store, registry: registry, keys: keys, now: time.Now}
}

// Spec says what is imported, and for whom.
type Spec struct {
	// Org is the organisation that gets the devices; zero is the caller's.
	Org    joinery.OrgID
	Kind   joinery.ImportKind
	SHA256 [sha256.Size]byte // of the file
	// MACVersion is that of all elements of a manifest; key lists name their own.
	MACVersion lorawan.MACVersion
	// Rekey is how all elements of a manifest rekey of which it says nothing itself, by
	// the word of who imports them; zero: they do not.
	Rekey joinery.RekeyProfile
	// Bind is the binding that new devices get; nil for none. Devices that are
	// there keep theirs.
	Bind *joinery.Binding
	// DryRun checks everything and writes nothing. Its import lives in memory and
	// is forgotten after an hour, or when the server stops.
	DryRun bool
}

// Begin finds the import of a file, where it was begun already, or makes it.
// CodeConflict where it was begun with other settings.
func (s *Service) Begin(ctx context.Context, caller joinery.Caller, spec Spec) (joinery.Import, error) {
	orgs, err := s.registry.Orgs(ctx)
	if err != nil {
		return joinery.Import{}, err
	}
	org, err := caller.ActingFor(spec.Org, orgs)
	if err != nil {
		return joinery.Import{}, err
	}
	want := joinery.Import{
		Org: org, Kind: spec.Kind, SHA256: spec.SHA256, MACVersion: spec.MACVersion, Rekey: spec.Rekey, Bind: spec.Bind,
		CreatedAt: s.timestamp(),
	}
	if want.Bind, err = checkSpec(spec); err != nil {
		return joinery.Import{}, err
	}
	if err := s.checkMayImport(ctx, org, spec.Kind); err != nil {
		return joinery.Import{}, err
	}
	if spec.DryRun {
		return s.dry.begin(want, s.now()), nil
	}
	want.ID = joinery.NewImportID()
	found, err := s.store.BeginImport(ctx, want)
	if err != nil {
		return joinery.Import{}, err
	}
	if found.MACVersion != want.MACVersion || found.Rekey != want.Rekey || !sameBinding(found.Bind, want.Bind) {
		return joinery.Import{}, joinery.Errorf(joinery.CodeConflict,
			"this file was begun as %s with another MACVersion, rekeying profile or binding; go on with those", found.ID)
	}
	return found, nil
}

// checkSpec checks what a file is to become, and gives the binding as it will
// be stored.
func checkSpec(spec Spec) (*joinery.Binding, error) {
	switch {
	case spec.Kind == joinery.ImportManifest && !spec.MACVersion.Valid():
		return nil, joinery.Errorf(joinery.CodeInvalid, "say with which MACVersion the elements of a manifest are provisioned")
	case spec.Kind == joinery.ImportKeyList && spec.MACVersion != 0:
		return nil, joinery.Errorf(joinery.CodeInvalid, "a key list names the MACVersion of each row; leave that of the import out")
	case spec.Kind == joinery.ImportKeyList && spec.Rekey != 0:
		return nil, joinery.Errorf(joinery.CodeInvalid, "the devices of a key list have no rekeying key here; leave the rekeying profile out")
	case spec.Kind != joinery.ImportManifest && spec.Kind != joinery.ImportKeyList:
		return nil, joinery.Errorf(joinery.CodeInvalid, "the kind of an import is manifest or key-list")
	case spec.SHA256 == [sha256.Size]byte{}:
		return nil, joinery.Errorf(joinery.CodeInvalid, "the SHA-256 of the file is missing")
	case spec.Bind == nil:
		return nil, nil
	}
	b := *spec.Bind
	if err := b.Check(); err != nil {
		return nil, err
	}
	if b.Locked || b.Source != "" && b.Source != "owner" {
		return nil, joinery.Errorf(joinery.CodeInvalid, "an import makes its owner's bindings only")
	}
	return &joinery.Binding{
		NetID: b.NetID, NSID: b.NSID, ASID: b.ASID, Policy: b.Policy, ClearNwkKeys: b.ClearNwkKeys, Source: "owner",
	}, nil
}

// checkMayImport refuses at once an organisation of which every row would be
// refused: it has no range, and nobody shares a signer with it.
func (s *Service) checkMayImport(ctx context.Context, org joinery.OrgID, kind joinery.ImportKind) error {
	ranges, err := s.registry.Ranges(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(ranges, func(r joinery.JoinEUIRange) bool { return r.Org == org }) {
		return nil
	}
	if kind == joinery.ImportManifest {
		signers, err := s.registry.Signers(ctx)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(signers, func(x joinery.Signer) bool { return x.Shared }) {
			return nil
		}
	}
	return joinery.Errorf(joinery.CodeForbidden, "no JoinEUI range is assigned to this organisation; the operator assigns them")
}

func sameBinding(a, b *joinery.Binding) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.SameTerms(*b)
}

// Status tells how far an import is.
func (s *Service) Status(ctx context.Context, caller joinery.Caller, id joinery.ImportID) (joinery.Import, error) {
	i, _, err := s.find(ctx, caller, id)
	return i, err
}

// find finds an import that caller's organisation began; another's is absent.
// The second result is set for a dry run.
func (s *Service) find(ctx context.Context, caller joinery.Caller, id joinery.ImportID) (joinery.Import, *dryRun, error) {
	absent := joinery.Errorf(joinery.CodeNotFound, "no such import")
	if run, i, ok := s.dry.find(id, s.now()); ok {
		if !caller.Owns(i.Org) {
			return joinery.Import{}, nil, absent
		}
		return i, run, nil
	}
	i, err := s.store.Import(ctx, id)
	if joinery.CodeOf(err) == joinery.CodeNotFound || err == nil && !caller.Owns(i.Org) {
		return joinery.Import{}, nil, absent
	}
	return i, nil, err
}

// maxErrors bounds a page of failed rows.
const maxErrors = 500

// Errors gives at most limit failed rows of an import, by index, beginning with
// the row of index from; the next page begins one above the last index. A dry
// run gives its failed rows in the answers of Rows alone.
func (s *Service) Errors(ctx context.Context, caller joinery.Caller, id joinery.ImportID, from uint64, limit int) ([]joinery.RowResult, error) {
	_, run, err := s.find(ctx, caller, id)
	if err != nil || run != nil {
		return nil, err
	}
	if limit <= 0 || limit > maxErrors {
		limit = maxErrors
	}
	// One more than asked for: above 0 begins at row 0 where from is 1.
	rows, err := s.store.ImportErrors(ctx, id, max(from, 1)-1, limit+1)
	if err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(r joinery.RowResult) bool { return r.Index < from })
	return rows[:min(len(rows), limit)], nil
}

func (s *Service) timestamp() time.Time { return s.now().UTC().Truncate(time.Millisecond) }
