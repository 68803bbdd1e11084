// Package manifest reads, verifies and writes manifests of secure elements: the
// signed list by which a maker says which chips it provisioned.
//
// A manifest is one JSON array. Each entry is one element: a JWS in flattened
// JSON form (RFC 7515 §7.2.2), signed with ES256, whose payload tells
// the element's serial number, its public data and, where it has one, its
// device key with certificates. Entries stand alone: a file can be split,
// merged, and verified in parallel. The shape is that of the Trust Platform
// manifests of Microchip; elements of other makers use the same shape with
// their own signer. No root key ever travels in a manifest.
//
// A signer is known by two names that must both match: "kid", the base64url of
// the SubjectKeyIdentifier of its certificate, and "x5t#S256", the base64url of
// SHA-256 over the certificate. There is no authority above signers: whoever
// verifies pins certificates, with the rules of what each signs, and gives them
// as Lookup.
//
// Where the identifiers of an element are depends on its family:
//
//	both       zone "data", slot 9,  offset 0, 72 bytes: JoinEUI, big-endian, then filler
//	joinery    zone "data", slot 10, offset 0, 16 bytes: DevEUI in upper-case ASCII hex
//	microchip  the device certificate, in one of the forms that subjectOf lists
//
// The device key, in slot 1, comes with its certificates. Where the rules name
// roots, they must lead to one, as of the time of provisioning, and name the same
// serial number and DevEUI.
//
// Errors name the rule that an entry breaks and never repeat its content.
package manifest
