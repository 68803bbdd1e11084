package manifest

import "errors"

// The rules of a manifest. Every error of this package wraps one of them.
var (
	// ErrFile: the file is not a JSON array; nothing after the place is read.
	ErrFile = errors.New("the manifest is not a JSON array of entries")
	// ErrTooLarge: an entry exceeds MaxEntry, or the file MaxEntries.
	ErrTooLarge = errors.New("too large")
	// ErrSyntax: the entry is not a flattened JWS with a JSON payload: wrong
	// types, duplicate members, bad base64url.
	ErrSyntax = errors.New("not a flattened JWS")
	// ErrAlgorithm: the entry is signed with something other than ES256.
	ErrAlgorithm = errors.New("signature algorithm must be ES256")
	// ErrUnknownSigner: no pinned signer has this kid and x5t#S256.
	ErrUnknownSigner = errors.New("signer is not pinned here")
	// ErrSignature: the signature is not the signer's.
	ErrSignature = errors.New("signature does not verify")
	// ErrShortForm: version 2, the short form, which has no keys or public data.
	ErrShortForm = errors.New("version 2 entries are the short form and cannot be imported; ask the maker for the full form")
	// ErrVersion: neither version 1 nor version 3.
	ErrVersion = errors.New("version must be 1 or 3")
	// ErrUniqueID: the serial number is malformed, or header and payload differ.
	ErrUniqueID = errors.New("uniqueId is wrong")
	// ErrTimestamp: provisioningTimestamp is not an RFC 3339 time.
	ErrTimestamp = errors.New("provisioningTimestamp is not an RFC 3339 time")
	// ErrJoinEUI: slot 9 does not hold a JoinEUI.
	ErrJoinEUI = errors.New("no JoinEUI in slot 9")
	// ErrDevEUI: the place where parts of this family have their DevEUI holds none.
	ErrDevEUI = errors.New("no DevEUI")
	// ErrGeneration: the part is of the first generation, whose certificate does
	// not name a DevEUI.
	ErrGeneration = errors.New("a part of the first generation, whose certificate names no DevEUI; it cannot be imported by its manifest")
	// ErrPublicKey: a key of publicKeySet is not a P-256 key, or its first
	// certificate is for another key.
	ErrPublicKey = errors.New("publicKeySet is wrong")
	// ErrChain: x5c does not lead to a pinned root.
	ErrChain = errors.New("x5c does not lead to a pinned root")
	// ErrSubject: the device certificate names another element.
	ErrSubject = errors.New("the device certificate names another element")
	// ErrRules: the rules of a signer do not fit together.
	ErrRules = errors.New("rules of the signer")
	// ErrCertificate: a signer's certificate cannot sign manifests.
	ErrCertificate = errors.New("certificate cannot sign manifests")
)
