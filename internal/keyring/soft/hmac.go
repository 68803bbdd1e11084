package soft

import "crypto/sha256"

// hmacSHA256 computes HMAC-SHA-256 (RFC 2104 §2) under a key of at most 64
// bytes. The standard library's would leave the key, twice masked, on the heap.
func hmacSHA256(key, msg []byte) [sha256.Size]byte {
	const ipad, opad = 0x36, 0x5C
	inner := make([]byte, sha256.BlockSize, sha256.BlockSize+len(msg))
	defer clear(inner)
	copy(inner, key)
	for i := range inner {
		inner[i] ^= ipad
	}
	sum := sha256.Sum256(append(inner, msg...))

	var outer [sha256.BlockSize + sha256.Size]byte
	defer clear(outer[:])
	for i := range sha256.BlockSize {
		outer[i] = inner[i] ^ ipad ^ opad
	}
	copy(outer[sha256.BlockSize:], sum[:])
	return sha256.Sum256(outer[:])
}
