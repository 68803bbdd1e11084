package keyring

import (
	"context"
	"errors"

	"joinery"
	"joinery/internal/exportfile"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// ErrOtherCustody says that a custody blob was sealed to another generation of the
// custody key, or to another key, or that there is no custody key at hand.
var ErrOtherCustody = errors.New("not sealed to this custody key")

// Custodian is what opens custody keys, and so what can take root keys out of
// custody: for a rotation, or for an export that was approved. It lives in a process
// of its own, never in a server, and for as long as that one task takes. It has the
// server's row MAC and master keys, and the custody key, each where it needs it.
type Custodian interface {
	// Generation is that of the newest custody key it has, from 1; 0 for none: then
	// it opens derived key sets only.
	Generation() uint32
	// Signer is the public half of the key that signs exports: the newest. What an
	// older one began to sign it signs to the end, as long as that is there.
	Signer() exportfile.Signer
	// Wrappings lists how it can wrap root keys; see exportfile.Choose.
	Wrappings() []exportfile.Wrapping
	// Reseal opens the custody blobs of key sets and seals their root keys to a
	// server's transport key, as rows of a key list: the server takes them in as it
	// takes in an import. What is wrong with one key set is its own error, and hinders
	// no other: ErrOtherCustody where a blob does not open with this key, ErrIntegrity,
	// ErrNoRoot. The header is that of all rows, zero where there is none.
	Reseal(ctx context.Context, to seal.PublicKey, roots []joinery.StoredRoots) (seal.Header, []Resealed, error)
	// Export wraps root keys to a recipient and signs them: a page of the export
	// whose header is h. What is wrong with one key set is its own error, and hinders
	// no other; an error is about all: exportfile.ErrFormat for a header that is not
	// whole, is to another recipient or names another signer,
	// exportfile.ErrWrapping, ErrToken.
	//
	// The MAC of a custody blob is checked before anything is opened: whoever can
	// write to the database cannot have another device's key exported as his.
	Export(ctx context.Context, h exportfile.Header, to exportfile.Recipient, in []ExportIn) ([]ExportOut, error)
	// Close wipes what there is in memory, or logs out of tokens.
	Close() error
}

// Resealed is the root keys of one key set, sealed anew, or why they are not.
type Resealed struct {
	Row seal.SealedRow
	Err error
}

// ExportIn asks for one device of an export: its key set, of which only what its
// origin needs has to be there (ID, DevEUI, Origin, Root10; Master and Generation, with
// Rekey, Serial and Steps of a rekeyed one, or the custody blobs), and what is to be signed about it, which must agree with that.
type ExportIn struct {
	KeySet joinery.KeySet
	About  exportfile.Metadata
}

// ExportOut is the device as it goes into the file, or why it does not: ErrIntegrity,
// ErrOtherCustody, ErrUnknownMaster, ErrNoRoot, ErrNotServed, ErrRequest.
type ExportOut struct {
	Device exportfile.Device
	Err    error
}

// ExportMetadata gives what an export says about a device with this key set.
func ExportMetadata(ks joinery.KeySet, joinEUI lorawan.EUI64, version lorawan.MACVersion) exportfile.Metadata {
	m := exportfile.Metadata{
		JoinEUI: joinEUI, DevEUI: ks.DevEUI, MACVersion: version,
		Root10: ks.Root10.String(), JoinNonce: ks.Nonces.JoinNonce,
	}
	for _, e := range ks.Nonces.ByJoinEUI {
		n := exportfile.Nonces{JoinEUI: e.JoinEUI, NextDevNonce: e.Next, NextRJCount1: e.NextRJCount1}
		for used := range e.Used.All {
			n.UsedDevNonces = append(n.UsedDevNonces, used)
		}
		m.Nonces = append(m.Nonces, n)
	}
	return m
}
