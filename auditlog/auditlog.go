// Package auditlog is the encoding of the audit log's leaves: what the server
// writes and an auditor links to check it.
//
// A leaf covers a payload without revealing it and without standing in the way
// of its erasure:
//
//	record    = version 1 byte ‖ SHA-256(salt 32 bytes ‖ payload)     33 bytes
//	leaf hash = SHA-256(0x00 ‖ record)                     RFC 6962 §2.1
//
// The record is the log entry in the sense of C2SP tlog-tiles: it stands in the
// entry bundles, and the leaf hash in the tiles of level 0. Payload and salt are
// private. Whoever is given both can check that they belong to the record, and
// the record by an inclusion proof to the log. Once both are erased nothing can
// be learned from the record, because the salt is random, and the tree stands.
package auditlog

import (
	"crypto/sha256"
	"errors"
	"fmt"
)

// Version is the record version that this package writes.
const Version = 1

// Sizes in bytes.
const (
	SaltSize   = 32
	RecordSize = 1 + sha256.Size
)

// Errors of VerifyRecord.
var (
	// ErrVersion: the record is none, or of a version that is not known here.
	ErrVersion = errors.New("audit record: unknown version or length")
	// ErrMismatch: the record covers another payload or another salt.
	ErrMismatch = errors.New("audit record: payload or salt is not what the record covers")
)

// Record is one log entry.
type Record [RecordSize]byte

// NewRecord makes the record that covers payload. The salt must be random and
// used once: with a known salt a short payload could be guessed from its record.
func NewRecord(salt [SaltSize]byte, payload []byte) (r Record) {
	h := sha256.New()
	h.Write(salt[:])
	h.Write(payload)
	r[0] = Version
	h.Sum(r[1:1])
	return r
}

// ParseRecord reads the 33 bytes of a record of a known version.
func ParseRecord(b []byte) (Record, error) {
	if len(b) != RecordSize || b[0] != Version {
		return Record{}, fmt.Errorf("%w: want %d bytes that begin with %d", ErrVersion, RecordSize, Version)
	}
	return Record(b), nil
}

// LeafHash gives the hash of r as a leaf of the Merkle tree (RFC 6962 §2.1).
func (r Record) LeafHash() [sha256.Size]byte {
	var b [1 + RecordSize]byte
	copy(b[1:], r[:]) // b[0] = 0x00 tells a leaf from an inner node
	return sha256.Sum256(b[:])
}

// VerifyRecord checks that record covers payload under salt: nil, ErrVersion or
// ErrMismatch.
func VerifyRecord(record, salt, payload []byte) error {
	r, err := ParseRecord(record)
	if err != nil {
		return err
	}
	if len(salt) != SaltSize || NewRecord([SaltSize]byte(salt), payload) != r {
		return ErrMismatch
	}
	return nil
}
