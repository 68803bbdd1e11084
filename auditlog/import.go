package auditlog

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"
)

// EventImported is the event of the entry that commits to the devices of one run
// of rows of an import. Its detail has "root", the ImportRoot of their leaves in
// hexadecimal digits, and "rows", how many leaves there are.
const EventImported = "import.committed"

// eventDeviceImported is the event of a device that was deleted and imported again:
// its detail has "manifest", SHA-256 of the entry that it has since. About no device it
// is that of a run of rows, and says who imported it, "import" and "from" as in the
// entry that commits to the run.
const eventDeviceImported = "device.imported"

// Import shows where the history of a device begins: that the device, with its
// EUIs and its manifest entry, is one of those to which an entry of the log
// commits. That entry is among those of the bundle, with Kind KindImport.
type Import struct {
	Entry string `json:"entry"`
	Row   int64  `json:"row"` // of the device among the leaves, from 0
	// JoinEUI and Manifest are as they were then; see ImportedDevice.
	JoinEUI  string   `json:"joinEUI"`
	Manifest string   `json:"manifest"`
	Nonce    []byte   `json:"nonce"` // 16 bytes
	Proof    [][]byte `json:"proof"` // RFC 6962 §2.1.1, from the leaf to "root"
}

// ImportedDevice is a device as the entry of its import commits to it.
type ImportedDevice struct {
	Nonce           []byte // 16 bytes, hides the rest from the other devices of the run
	Device          string
	JoinEUI, DevEUI string // 16 upper-case hexadecimal digits
	// Manifest is SHA-256 of the signed entry with which it was imported,
	// hexadecimal; "" for none.
	Manifest string
}

// Leaf is SHA-256 over a line for each field. It is the leaf's content in the
// sense of RFC 6962; that of a row that made no device is all zero.
func (d ImportedDevice) Leaf() [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "joinery imported device 1\n%x\n%s\n%s\n%s\n%s\n", d.Nonce, d.Device, d.JoinEUI, d.DevEUI, d.Manifest))
}

// importNonceLen is the length of a nonce, in bytes.
const importNonceLen = 16

// ImportNonce makes the nonce of a row of a run from what hides the whole run, 32
// random bytes that never leave the server.
func ImportNonce(salt []byte, row int64) []byte {
	b := append([]byte("joinery import nonce 1\n"), salt...)
	h := sha256.Sum256(binary.BigEndian.AppendUint64(b, uint64(row)))
	return h[:importNonceLen]
}

// ImportRoot is the Merkle Tree Hash (RFC 6962 §2.1) of leaves.
func ImportRoot(leaves [][sha256.Size]byte) ([sha256.Size]byte, error) {
	r, err := importHashes(leaves)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	return tlog.TreeHash(int64(len(leaves)), r)
}

// ImportProof proves that a leaf is one of them.
func ImportProof(leaves [][sha256.Size]byte, row int64) (proof [][]byte, err error) {
	r, err := importHashes(leaves)
	if err != nil {
		return nil, err
	}
	hashes, err := tlog.ProveRecord(int64(len(leaves)), row, r)
	for _, h := range hashes {
		proof = append(proof, h[:])
	}
	return proof, err
}

// importHashes is the tree of leaves.
func importHashes(leaves [][sha256.Size]byte) (tlog.HashReader, error) {
	var stored []tlog.Hash
	r := tlog.HashReaderFunc(func(indexes []int64) (list []tlog.Hash, err error) {
		for _, i := range indexes {
			list = append(list, stored[i])
		}
		return list, nil
	})
	for n, leaf := range leaves {
		more, err := tlog.StoredHashes(int64(n), leaf[:], r)
		if err != nil {
			return nil, err
		}
		stored = append(stored, more...)
	}
	return r, nil
}

// began checks where the history of the device begins.
func (v *verifier) began() {
	i := v.b.Import
	if i == nil {
		v.note("nothing shows how the device was imported: it came before the log commits to that")
		return
	}
	e := v.named(i.Entry)
	if e == nil || e.Kind != KindImport {
		v.find(FaultImport, i.Entry, "the entry of the device's import is not shown")
		return
	}
	p, err := ParseEvent(e.Payload)
	if err != nil {
		return // the entry itself was found wrong
	}
	rows, err1 := strconv.ParseInt(p.Detail["rows"], 10, 64)
	root, err2 := hex.DecodeString(p.Detail["root"])
	leaf := ImportedDevice{Nonce: i.Nonce, Device: v.b.Device, JoinEUI: i.JoinEUI, DevEUI: v.b.DevEUI, Manifest: i.Manifest}.Leaf()
	proof, ok := hashes(i.Proof)
	if err1 != nil || err2 != nil || len(root) != sha256.Size || len(i.Nonce) != importNonceLen || !ok || i.Row < 0 || i.Row >= rows ||
		tlog.CheckRecord(proof, rows, tlog.Hash(root), i.Row, tlog.RecordHash(leaf[:])) != nil {
		v.find(FaultImport, e.ID, "the device, with these EUIs and this manifest entry, is not one of those that were imported")
		return
	}
	if h := v.manifest(); h != "" && !v.hadManifest(h) {
		v.find(FaultImport, e.ID, "the manifest entry is not the one with which the device was imported")
	}
	if e.Leaf >= 0 {
		v.nothingBefore(e)
	}
	v.r.Began = &Began{At: p.Time(), Entry: e.ID, Leaf: e.Leaf, Manifest: i.Manifest, By: v.importer(p)}
}

// importer gives who imported the run of rows to which an event commits.
func (v *verifier) importer(committed Event) (by string) {
	for i := range v.b.Entries {
		e := &v.b.Entries[i]
		if e.Kind != KindRelated {
			continue
		}
		p, err := ParseEvent(e.Payload)
		if err != nil || p.Event != eventDeviceImported {
			continue
		}
		if p.Detail["import"] == committed.Detail["import"] && p.Detail["from"] == committed.Detail["from"] {
			by = p.Actor
		} else {
			v.find(FaultImport, e.ID, "it is of another import")
		}
	}
	return by
}

// nothingBefore checks that no event about the device is older than its import.
func (v *verifier) nothingBefore(first *Entry) {
	for j := range v.b.Entries {
		if e := &v.b.Entries[j]; e.Kind == KindEvent && e.Leaf >= 0 && e.Leaf < first.Leaf {
			v.find(FaultImport, e.ID, "it is about the device, and older than its import")
		}
	}
}

// manifest is SHA-256 of the bundle's manifest entry; "" where it has none.
func (v *verifier) manifest() string {
	if len(v.b.Manifest) == 0 {
		return ""
	}
	h := sha256.Sum256(v.b.Manifest)
	return hex.EncodeToString(h[:])
}

// hadManifest tells whether the device was imported with the manifest entry of
// that hash, at first or again.
func (v *verifier) hadManifest(hash string) bool {
	for i := range v.b.Entries {
		e := &v.b.Entries[i]
		if p, err := ParseEvent(e.Payload); e.Kind == KindEvent && err == nil && p.Event == eventDeviceImported && p.Detail["manifest"] == hash {
			return true
		}
	}
	return v.b.Import.Manifest == hash
}

// named finds an entry of the bundle by its name.
func (v *verifier) named(id string) *Entry {
	for i := range v.b.Entries {
		if v.b.Entries[i].ID == id {
			return &v.b.Entries[i]
		}
	}
	return nil
}
