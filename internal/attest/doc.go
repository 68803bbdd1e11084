// Package attest judges what devices show of their element and firmware: evidence
// that answers a challenge of ours, held against signed releases of the device's
// maker. It keeps what each device has shown, for how long that stands, and what
// its owner wants of it.
//
// Evidence of a level gives exactly that level. What a level proves, and what not,
// stands in docs/attestation.md.
package attest
