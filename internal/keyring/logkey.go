package keyring

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strconv"
)

// logKeyDomain stands in front of what the seed of the log's key is a MAC of; see
// ownerTokenDomain.
const logKeyDomain = "joinery custody log key 1\x00"

// LogKey gives the public half of the key that signs checkpoints of the custody
// log: Ed25519, whose seed is HMAC-SHA-256 under the owner-token key over domain ‖
// generation 4 (big-endian). So every token can have one, every server of a fleet
// and every restored one has the same, and none is at rest anywhere.
func (k *Keyring) LogKey(ctx context.Context, generation uint32) (public []byte, err error) {
	err = k.withLogKey(ctx, generation, func(key ed25519.PrivateKey) {
		public = bytes.Clone(key[ed25519.SeedSize:])
	})
	return public, err
}

// SignCheckpoint gives the signature of a checkpoint under that key, 64 bytes. It
// signs nothing that is not the text of one (c2sp.org/tlog-checkpoint): lines that
// are not empty, of which the second is a number and the third a hash; else
// ErrRequest.
func (k *Keyring) SignCheckpoint(ctx context.Context, generation uint32, text []byte) (signature []byte, err error) {
	if !isCheckpoint(text) {
		return nil, mismatch("what is to be signed is no checkpoint")
	}
	err = k.withLogKey(ctx, generation, func(key ed25519.PrivateKey) { signature = ed25519.Sign(key, text) })
	return signature, err
}

func (k *Keyring) withLogKey(ctx context.Context, generation uint32, use func(ed25519.PrivateKey)) error {
	return k.run(ctx, func() error {
		msg := binary.BigEndian.AppendUint32([]byte(logKeyDomain), generation)
		seed, err := k.token.MAC(ctx, OwnerTokens, msg)
		if err != nil {
			return err
		}
		defer clear(seed[:])
		key := ed25519.NewKeyFromSeed(seed[:])
		defer clear(key)
		use(key)
		return nil
	})
}

func isCheckpoint(text []byte) bool {
	const heads = 3 // origin, size, root
	lines := bytes.SplitAfter(text, []byte("\n"))
	if len(lines) <= heads || len(lines[len(lines)-1]) != 0 {
		return false
	}
	for _, line := range lines[:len(lines)-1] {
		if len(line) < 2 {
			return false
		}
	}
	size := string(lines[1][:len(lines[1])-1])
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != size || n < 0 {
		return false
	}
	root, err := base64.StdEncoding.DecodeString(string(lines[2][:len(lines[2])-1]))
	return err == nil && len(root) == sha256.Size
}
