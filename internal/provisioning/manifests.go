package provisioning

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"fmt"
	"runtime"
	"sync"

	"joinery"
	"joinery/manifest"
)

// pinned is a signer with its key.
type pinned struct {
	joinery.Signer
	key *ecdsa.PublicKey
}

func (s *Service) pinnedSigners(ctx context.Context) (map[manifest.SignerID]pinned, error) {
	signers, err := s.registry.Signers(ctx)
	if err != nil {
		return nil, err
	}
	found := make(map[manifest.SignerID]pinned, len(signers))
	for _, signer := range signers {
		id, key, err := manifest.ParseSigner(signer.DER)
		if err != nil {
			return nil, fmt.Errorf("pinned signer %s: %w", signer.ID, err)
		}
		found[id] = pinned{signer, key}
	}
	return found, nil
}

// planManifest verifies the entries of a chunk and makes devices of them.
func (s *Service) planManifest(ctx context.Context, i joinery.Import, c Chunk) (plan, error) {
	a, err := s.authority(ctx, i)
	if err != nil {
		return plan{}, err
	}
	verified := verifyAll(ctx, c.Entries, func(id manifest.SignerID) *ecdsa.PublicKey { return a.signers[id].key })
	if err := ctx.Err(); err != nil {
		return plan{}, err
	}
	var p plan
	for k, v := range verified {
		index := c.From + uint64(k)
		at := row{index: index, line: index + 1, joinEUI: v.element.JoinEUI, devEUI: v.element.DevEUI, version: i.MACVersion}
		if v.err != nil {
			p.failed = append(p.failed, at.refuse(v.err.Error()))
			continue
		}
		signer := a.signers[v.signer].Signer
		if reason := a.refuseElement(v.element, signer); reason != "" {
			p.failed = append(p.failed, at.refuse(reason))
			continue
		}
		p.devices = append(p.devices, s.newElement(i, at, signer, v.element, c.Entries[k]))
	}
	return p, nil
}

// newElement makes a device whose roots derive from its signer's master key.
// An element serves 1.0.x with its NwkKey: its 1.0.x firmware uses that slot.
func (s *Service) newElement(i joinery.Import, at row, signer joinery.Signer, e manifest.Element, raw []byte) joinery.NewDevice {
	n := s.newDevice(i, at)
	n.KeySet.Origin = joinery.OriginDerived
	n.KeySet.Master, n.KeySet.Generation = signer.Master, signer.Generation
	n.KeySet.Root10 = joinery.NwkKey
	n.Manifest, n.Serial = raw, e.UniqueID
	return n
}

// verifiedEntry is an entry that was verified, or why it does not count.
type verifiedEntry struct {
	element manifest.Element
	signer  manifest.SignerID
	err     error
}

// verifyAll verifies entries on all processors: the two of them, not the
// database, are what an import waits for. The results are in the entries'
// order; after ctx ended they are worthless.
func verifyAll(ctx context.Context, entries []json.RawMessage, lookup manifest.Lookup) []verifiedEntry {
	results := make([]verifiedEntry, len(entries))
	workers := max(1, min(runtime.GOMAXPROCS(0), len(entries)))
	var wait sync.WaitGroup
	for w := range workers {
		wait.Go(func() {
			for k := w; k < len(entries) && ctx.Err() == nil; k += workers {
				v := &results[k]
				v.element, v.signer, v.err = manifest.Verify(entries[k], lookup)
			}
		})
	}
	wait.Wait()
	return results
}
