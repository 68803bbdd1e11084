package provisioning

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"

	"joinery"
	"joinery/internal/seal"
)

// Chunk is a run of rows of one import, in the file's order.
type Chunk struct {
	Import joinery.ImportID
	// From is the index of the first row; it must be the import's Next.
	From uint64
	// Last says that the file ends with this chunk.
	Last bool

	// Key lists: Seal opens the keys of Keys. BadRows are rows that the
	// customer's machine could not seal; their Index places them among Keys,
	// which fill the other places in order.
	Seal    seal.Header
	Keys    []seal.SealedRow
	BadRows []joinery.RowResult

	// Devices that another Joinery exported, in the place of Keys: the first line of
	// its file, and lines of devices, as they were signed. All were wrapped together,
	// under one file key.
	ExportHeader []byte
	Exported     [][]byte

	// Manifests: entries as they stand in the file.
	Entries []json.RawMessage

	// Checked is called when the rows are checked, and only wait for their turn to be
	// stored, which may take long; nil for nobody.
	Checked func()
}

func (c Chunk) count() int { return len(c.Keys) + len(c.Exported) + len(c.BadRows) + len(c.Entries) }

// plan is what a chunk would do to the store.
type plan struct {
	devices []joinery.NewDevice
	failed  []joinery.RowResult
	// warnings are about rows that pass, by index.
	warnings map[uint64]string
}

// warn puts the warnings to the results of the rows that they are about.
func (p plan) warn(results []joinery.RowResult) {
	if len(p.warnings) == 0 {
		return
	}
	for k, r := range results {
		if !r.Status.Refused() {
			results[k].Warning = p.warnings[r.Index]
		}
	}
}

// Rows takes one chunk and tells the fate of each of its rows, by index, and
// where the import then stands. Chunks of one import may come side by side: they
// are checked at once and taken in order. CodeConflict where the chunk does not
// begin at the import's Next, and no other comes before it in time: ask for Status
// and go on there.
func (s *Service) Rows(ctx context.Context, caller joinery.Caller, c Chunk) ([]joinery.RowResult, joinery.Import, error) {
	i, dry, err := s.find(ctx, caller, c.Import)
	if err != nil {
		return nil, joinery.Import{}, err
	}
	if err := checkChunk(i, c); err != nil {
		return nil, i, err
	}
	turn, err := s.turns.enter(i.ID, c.From)
	if err != nil {
		return nil, i, err
	}
	defer turn.leave()
	var p plan
	if i.Kind == joinery.ImportManifest {
		p, err = s.planManifest(ctx, i, c)
	} else {
		p, err = s.planKeyList(ctx, i, c)
	}
	if err != nil {
		return nil, i, err
	}
	if c.Checked != nil {
		c.Checked()
	}
	i, err = turn.wait(ctx, func() (joinery.Import, error) { return s.Status(ctx, caller, c.Import) })
	if err != nil {
		return nil, i, err
	}
	rows := joinery.ImportRows{
		Import: i.ID, From: c.From, Count: uint64(c.count()), Devices: p.devices, Failed: p.failed, Last: c.Last,
	}
	results, after, err := s.commit(ctx, caller, i, dry, rows)
	p.warn(results)
	return results, after, err
}

// commit takes rows, or only looks at them where the import is a dry run.
func (s *Service) commit(ctx context.Context, caller joinery.Caller, i joinery.Import, dry *dryRun, rows joinery.ImportRows) ([]joinery.RowResult, joinery.Import, error) {
	if dry != nil {
		return s.look(ctx, i, dry, rows)
	}
	results, err := s.store.CommitRows(ctx, rows, s.importEntry(caller, i, rows))
	if err != nil {
		return nil, i, err
	}
	after, err := s.store.Import(context.WithoutCancel(ctx), i.ID)
	if err != nil {
		return nil, i, joinery.WrapError(joinery.CodeUnavailable, err, "the rows are stored, but the import could not be read back; ask for its status")
	}
	return results, after, nil
}

func checkChunk(i joinery.Import, c Chunk) error {
	switch {
	case c.count() > joinery.MaxImportRows:
		return joinery.Errorf(joinery.CodeTooLarge, "an import takes at most %d rows at once", joinery.MaxImportRows)
	case i.Done || c.From < i.Next || c.From > i.Next+maxAhead*joinery.MaxImportRows:
		return wrongRow(i)
	case c.count() == 0 && !c.Last:
		return joinery.Errorf(joinery.CodeInvalid, "there are no rows")
	case i.Kind == joinery.ImportManifest && len(c.Keys)+len(c.Exported)+len(c.BadRows) > 0:
		return joinery.Errorf(joinery.CodeInvalid, "this import is of a manifest; it takes no rows of a key list")
	case i.Kind == joinery.ImportKeyList && len(c.Entries) > 0:
		return joinery.Errorf(joinery.CodeInvalid, "this import is of a key list; it takes no entries of a manifest")
	case len(c.Exported) > 0 && len(c.Keys)+len(c.BadRows) > 0:
		return joinery.Errorf(joinery.CodeInvalid, "devices of an export come by themselves, without rows of a key list")
	}
	return nil
}

func wrongRow(i joinery.Import) error {
	if i.Done {
		return joinery.Errorf(joinery.CodeConflict, "the import is done")
	}
	return joinery.Errorf(joinery.CodeConflict, "the import goes on at row %d", i.Next)
}

// look is CommitRows without writing: it tells which devices are there already.
// What only the store can see (an element that is here under another JoinEUI, a
// row that repeats an earlier one of the same file) shows when the import runs.
func (s *Service) look(ctx context.Context, i joinery.Import, run *dryRun, rows joinery.ImportRows) ([]joinery.RowResult, joinery.Import, error) {
	results := slices.Clone(rows.Failed)
	for _, n := range rows.Devices {
		r := joinery.RowResult{
			Index: n.Index, Line: n.Line, JoinEUI: n.Device.JoinEUI, DevEUI: n.Device.DevEUI, Serial: n.Serial, Status: joinery.RowCreated,
		}
		state, err := s.registry.LoadActivation(ctx, n.Device.JoinEUI, n.Device.DevEUI)
		switch {
		case joinery.CodeOf(err) == joinery.CodeUnknownDevice:
		case err != nil:
			return nil, i, err
		default:
			if r.Status, r.Reason = judgeRepeat(i, state, n); r.Status == joinery.RowUnchanged {
				r.Device = state.Device.ID
			}
		}
		results = append(results, r)
	}
	slices.SortFunc(results, func(a, b joinery.RowResult) int { return cmp.Compare(a.Index, b.Index) })
	if err := s.dry.move(run, rows, results); err != nil {
		return nil, i, err
	}
	_, after, _ := s.dry.find(i.ID, s.now())
	return results, after, nil
}

// judgeRepeat tells what a row means for a device that is there, and why, if it
// is refused.
func judgeRepeat(i joinery.Import, there joinery.ActivationState, n joinery.NewDevice) (joinery.RowStatus, string) {
	a, b := there.KeySet, n.KeySet
	switch {
	case there.Device.Maker != i.Org && there.Device.Ownership.Org != i.Org:
		return joinery.RowConflict, reasonTaken
	case a.Origin == joinery.OriginRekeyed && b.Origin == joinery.OriginDerived && there.Device.MACVersion == n.Device.MACVersion:
	case a.Origin != b.Origin || a.Master != b.Master || a.Generation != b.Generation:
		return joinery.RowFailed, reasonOtherKeys
	case there.Device.MACVersion != n.Device.MACVersion:
		return joinery.RowFailed, reasonOtherMAC
	}
	return joinery.RowUnchanged, ""
}

func (s *Service) importEntry(caller joinery.Caller, i joinery.Import, rows joinery.ImportRows) joinery.AuditEntry {
	entry := joinery.AuditEntry{
		At: s.timestamp(), Event: joinery.AuditDeviceImported, Actor: caller.Name, Org: i.Org,
		Detail: map[string]string{
			"import": i.ID.String(), "kind": string(i.Kind), "sha256": hex.EncodeToString(i.SHA256[:]),
			"from": strconv.FormatUint(rows.From, 10), "rows": strconv.FormatUint(rows.Count, 10),
			"refused": strconv.Itoa(len(rows.Failed)),
		},
	}
	if i.Rekey != 0 {
		entry.Detail["rekey_profile"] = i.Rekey.String()
	}
	return entry
}

// newDevice is the part of a device that manifests and key lists have in common.
func (s *Service) newDevice(i joinery.Import, at row) joinery.NewDevice {
	now := s.timestamp()
	n := joinery.NewDevice{
		Index: at.index, Line: at.line,
		Device: joinery.Device{
			ID: joinery.NewDeviceID(), JoinEUI: at.joinEUI, DevEUI: at.devEUI, MACVersion: at.version,
			Maker: i.Org, Ownership: joinery.Ownership{Org: i.Org, Since: now}, CreatedAt: now,
		},
	}
	n.KeySet = joinery.KeySet{ID: joinery.NewKeySetID(), DeviceID: n.Device.ID, DevEUI: at.devEUI}
	if i.Bind != nil {
		b := *i.Bind
		n.Binding = &b
	}
	return n
}
