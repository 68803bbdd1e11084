// Package lwcrypto is the cryptography of LoRaWAN activation: AES-CMAC, the
// blocks from which keys are derived, what MICs cover, and AES key wrap.
//
// It works over opaque block operations wherever a key may live in a hardware
// token, and holds no key itself. Identifiers come in as package lorawan has
// them (big-endian); the blocks turn them into the order in which they travel,
// least significant byte first (TS001-1.0.4 §4).
package lwcrypto
