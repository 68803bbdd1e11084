package provisioning

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"joinery"
	"joinery/manifest"
)

// pinned is a signer that can verify.
type pinned struct {
	joinery.Signer
	verifies *manifest.Signer
}

// pinnedSigners is the signers by their names in entries. Several organisations
// may have pinned one certificate, each with rules and ranges of its own.
type pinnedSigners map[manifest.SignerID][]pinned

// pinnedSigners reads the signers. Of those with one certificate the first is the
// importing organisation's, then come shared ones, then others'.
func (s *Service) pinnedSigners(ctx context.Context, org joinery.OrgID) (pinnedSigners, error) {
	signers, err := s.registry.Signers(ctx)
	if err != nil {
		return nil, err
	}
	found := make(pinnedSigners, len(signers))
	for _, signer := range signers {
		verifies, err := signer.Pinned()
		if err != nil {
			return nil, fmt.Errorf("pinned signer %s: %w", signer.ID, err)
		}
		found[verifies.ID()] = append(found[verifies.ID()], pinned{signer, verifies})
	}
	rank := func(p pinned) int {
		switch {
		case p.Org == org:
			return 0
		case p.Shared:
			return 1
		}
		return 2
	}
	for _, list := range found {
		slices.SortStableFunc(list, func(a, b pinned) int { return rank(a) - rank(b) })
	}
	return found, nil
}

// planManifest verifies the entries of a chunk and makes devices of them.
func (s *Service) planManifest(ctx context.Context, i joinery.Import, c Chunk) (plan, error) {
	a, err := s.authority(ctx, i)
	if err != nil {
		return plan{}, err
	}
	judged := a.judgeAll(ctx, c.Entries)
	if err := ctx.Err(); err != nil {
		return plan{}, err
	}
	p := plan{warnings: map[uint64]string{}}
	for k, j := range judged {
		index := c.From + uint64(k)
		e := j.element
		at := row{index: index, line: index + 1, joinEUI: e.JoinEUI, devEUI: e.DevEUI, version: i.MACVersion, serial: e.UniqueID}
		if j.reason != "" {
			p.failed = append(p.failed, at.refuse(j.reason))
			continue
		}
		if e.Warning != "" {
			p.warnings[index] = e.Warning
		}
		p.devices = append(p.devices, s.newElement(i, at, j))
	}
	return p, nil
}

// newElement makes a device whose roots derive from its signer's master key.
// An element serves 1.0.x with its NwkKey: its 1.0.x firmware uses that slot.
func (s *Service) newElement(i joinery.Import, at row, j judgement) joinery.NewDevice {
	n := s.newDevice(i, at)
	n.KeySet.Origin = joinery.OriginDerived
	n.KeySet.Master, n.KeySet.Generation = j.signer.Master, j.signer.Generation
	n.KeySet.Root10 = joinery.NwkKey
	n.Manifest, n.Serial, n.Signer = j.signed, j.element.UniqueID, j.signer.ID
	if n.Device.Rekey, n.Device.RekeyWord = i.Rekey, joinery.RekeyByImporter; j.element.Rekey != "" {
		n.Device.RekeyWord = joinery.RekeyByManifest
		_ = n.Device.Rekey.UnmarshalText([]byte(j.element.Rekey)) // S or M: the manifest was read
	}
	return n
}

// judgement is what an entry says and who signed it, or why it does not count.
type judgement struct {
	element manifest.Element
	signer  joinery.Signer
	signed  []byte // the entry as it is kept: what its signer vouches for
	reason  string
}

// judgeAll judges entries on all processors: they, not the database, are what an
// import waits for. The results are in the entries' order; after ctx ended they
// are worthless.
func (a authority) judgeAll(ctx context.Context, entries []json.RawMessage) []judgement {
	results := make([]judgement, len(entries))
	workers := max(1, min(runtime.GOMAXPROCS(0), len(entries)))
	var wait sync.WaitGroup
	for w := range workers {
		wait.Go(func() {
			for k := w; k < len(entries) && ctx.Err() == nil; k += workers {
				results[k] = a.judge(entries[k])
			}
		})
	}
	wait.Wait()
	return results
}

// judge verifies an entry and checks what its signer may provision. Where its
// certificate is pinned more than once, the first pin that lets it pass counts,
// and the first reason if none does.
func (a authority) judge(raw json.RawMessage) (first judgement) {
	for try := 0; ; try++ {
		var j judgement
		more := false
		lookup := func(id manifest.SignerID) *manifest.Signer {
			list := a.signers[id]
			if try >= len(list) {
				return nil
			}
			more = try+1 < len(list)
			j.signer = list[try].Signer
			return list[try].verifies
		}
		e, _, err := manifest.Verify(raw, lookup)
		j.element = e
		if err == nil {
			j.signed, err = manifest.SignedPart(raw)
		}
		if err != nil {
			j.reason = err.Error()
		} else {
			j.reason = a.refuseElement(e, j.signer)
		}
		if j.reason == "" {
			return j
		}
		if try == 0 {
			first = j
		}
		if !more {
			return first
		}
	}
}
