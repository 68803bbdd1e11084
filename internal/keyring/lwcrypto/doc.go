// Package lwcrypto is the cryptography of LoRaWAN activation: the
// blocks from which keys are derived, what MICs cover, and AES key wrap.
//
// It works over opaque block operations wherever a key may live in a hardware
// token, and holds no key itself. Identifiers come in as package lorawan has
// them (big-endian); the blocks turn them into the order in which they travel,
// least significant byte first (TS001-1.0.4 §4).
package lwcrypto

import "joinery/internal/cmac"

// BlockLen is the length of an AES block, and of a LoRaWAN key, in bytes.
const BlockLen = cmac.BlockLen
