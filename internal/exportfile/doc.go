// Package exportfile is the form in which root keys leave a Join Server for their
// owner: who may receive them (Recipient), how they are wrapped (Wrapping), the
// file that carries them, and how it is checked and opened at the owner's.
//
// A file is lines of JSON (NDJSON): one Header, then one Device a line. A device
// carries what the next server must know of it, signed, and one wrapped blob per
// root key. Three forms of blobs:
//
//   - raw: the key itself under RSA-OAEP, as every HSM can make and open it
//   - jwe: a JSON Web Encryption (RFC 7516, compact) of the key as a JSON Web Key
//   - seal: two steps; the form of package seal. One file key under RSA-OAEP, the
//     root keys under it by AES key wrap, and the MAC of a key list's row: another
//     Joinery imports it as it is, without anything in the clear in between
//
// The signature is one per device, so that a file may be cut between any two
// lines, fetched in pages and put together again. It is ES256 (RFC 7518 §3.4) over
// this text, where JCS is the canonical form of RFC 8785:
//
//	joinery-export/1 LF JCS(header) LF JCS(device, without signature and blobs)
//
// Blobs are covered by their SHA-256. So a blob cannot be given to another device, a
// device cannot be put into another export, and a file whose blobs were taken out
// (which it may outlive) still proves what was exported, and to whom.
package exportfile
