package keyring

import (
	"encoding/binary"
	"slices"

	"joinery"
	"joinery/internal/exportfile"
)

// A storage key is replaced by a new generation beside it, so that what the old
// one sealed opens until it was sealed anew. A blob says by which generation it was
// made, in front of everything else:
//
//	FormatGeneration ‖ generation 4, big-endian ‖ format ‖ ciphertext
//
// Blobs of generation 1 have no such head: they are as they were before there was
// a second one. The MAC of a blob covers its head.
const generationHead = 1 + 4

// Generations are those of a token's storage keys, from 1, and the key by which its
// custodians sign.
type Generations struct {
	// JoinKEK are those under which root keys open for use, in rising order; the
	// last one seals.
	JoinKEK []uint32
	// Custody is that of the custody key to which root keys are sealed.
	Custody uint32
	// Transport are the key identifiers of transport keys that open what was sealed
	// to them, the newest last.
	Transport []string
	// Exports are the public halves of all keys that sign exports or once did, the
	// newest, which signs, last; none where the token has none yet.
	Exports []exportfile.Signer
}

// Newest is the join KEK that seals; 0 where there is none.
func (g Generations) Newest() uint32 {
	if len(g.JoinKEK) == 0 {
		return 0
	}
	return g.JoinKEK[len(g.JoinKEK)-1]
}

// Equal tells whether both are the same.
func (g Generations) Equal(o Generations) bool {
	return slices.Equal(g.JoinKEK, o.JoinKEK) && g.Custody == o.Custody && slices.Equal(g.Transport, o.Transport) && slices.Equal(g.Exports, o.Exports)
}

// Current tells whether a stored root key, if there is one, is sealed under the
// newest generations.
func (g Generations) Current(r joinery.SealedRoot) bool {
	return (len(r.Use) == 0 || GenerationOf(r.Use) == g.Newest()) && (len(r.Custody) == 0 || GenerationOf(r.Custody) == g.Custody)
}

// WithGeneration puts the head of a generation in front of a blob.
func WithGeneration(generation uint32, blob []byte) []byte {
	if generation <= 1 {
		return blob
	}
	head := binary.BigEndian.AppendUint32([]byte{FormatGeneration}, generation)
	return append(head, blob...)
}

// SplitGeneration takes the head off a blob. A head that no token of ours makes is
// ErrIntegrity: each blob is written in one way only.
func SplitGeneration(blob []byte) (generation uint32, rest []byte, err error) {
	if len(blob) == 0 || blob[0] != FormatGeneration {
		return 1, blob, nil
	}
	if len(blob) <= generationHead {
		return 0, nil, ErrIntegrity
	}
	generation = binary.BigEndian.Uint32(blob[1:])
	if generation <= 1 {
		return 0, nil, ErrIntegrity
	}
	return generation, blob[generationHead:], nil
}

// GenerationOf tells by which generation a stored blob says that it was made; 0
// for what is none. It may be given the head of a blob alone.
func GenerationOf(stored []byte) uint32 {
	switch {
	case len(stored) == 0:
		return 0
	case stored[0] != FormatGeneration:
		return 1
	case len(stored) < generationHead:
		return 0
	}
	return binary.BigEndian.Uint32(stored[1:])
}

// CustodyBlob is what the holder of the custody key opens of a stored custody
// blob: all but the MAC, which only the keyring can check.
func CustodyBlob(stored joinery.Sealed) ([]byte, error) {
	if len(stored) <= macLen {
		return nil, ErrIntegrity
	}
	return stored[:len(stored)-macLen], nil
}
