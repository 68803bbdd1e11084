package joinery

import (
	"errors"
	"fmt"
	"time"

	"joinery/manifest"
)

// AttestLevel says what was shown of a device, beyond the keys that it joins with.
// Each is stronger than the one below it, and evidence of a level gives exactly
// that level. docs/attestation.md says what each proves, and what not.
type AttestLevel uint8

// Levels.
const (
	// AttestNone, L0: nothing but symmetric keys, which any software may use.
	AttestNone AttestLevel = iota
	// AttestPossession, L1: the device key in the element signed a challenge. What
	// software asked it to is what that software says.
	AttestPossession
	// AttestBoot, L2: a key signed that the element lets nobody use before it has
	// verified a signed image since it was powered; image and counter are the chip's
	// words.
	AttestBoot
	// AttestToken, L3: a root of trust in the microcontroller measured what it runs,
	// and signed it.
	AttestToken
)

// AttestLevels is all levels from L1 on, the lowest first.
var AttestLevels = []AttestLevel{AttestPossession, AttestBoot, AttestToken}

// String gives L0 to L3.
func (l AttestLevel) String() string { return fmt.Sprintf("L%d", uint8(l)) }

// MarshalText implements encoding.TextMarshaler.
func (l AttestLevel) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler: L0, L1, L2 or L3.
func (l *AttestLevel) UnmarshalText(text []byte) error {
	if len(text) != 2 || text[0] != 'L' || text[1] < '0' || text[1] > '3' {
		return errors.New("attestation level: want L0, L1, L2 or L3")
	}
	*l = AttestLevel(text[1] - '0')
	return nil
}

// AttestAction is what becomes of a device that is below the level that its owner
// wants.
type AttestAction uint8

// Actions.
const (
	AttestIgnore AttestAction = iota // nothing
	AttestWarn                       // it is said where people look at the device
	AttestRefuse                     // the act does not happen
)

var attestActionText = [...]string{AttestIgnore: "none", AttestWarn: "warn", AttestRefuse: "refuse"}

// String gives the one text form.
func (a AttestAction) String() string {
	if int(a) < len(attestActionText) {
		return attestActionText[a]
	}
	return "unknown"
}

// MarshalText implements encoding.TextMarshaler.
func (a AttestAction) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler: none, warn or refuse.
func (a *AttestAction) UnmarshalText(text []byte) error {
	for known, name := range attestActionText {
		if name == string(text) {
			*a = AttestAction(known)
			return nil
		}
	}
	return errors.New("attestation action: want none, warn or refuse")
}

// AttestBasis says who stands by the key that verified evidence. Each is stronger than
// the one below it.
type AttestBasis uint8

// Bases.
const (
	// AttestAny: nobody stands by the key now, or it was not noted who does. The manifest
	// that names it was signed when its signer was pinned, and that is so no more; or it
	// breaks a rule of the pin.
	AttestAny AttestBasis = iota
	// AttestVouched: the signer of the manifest that names the key is pinned and all its
	// rules hold, or the maker registered the key.
	AttestVouched
	// AttestChain: besides, certificates of the key lead to a root that is pinned with the
	// signer, and name the element and the key's slot.
	AttestChain
	// AttestUnsaid is none: as the organisation's policy has it, and AttestVouched where
	// it has none.
	AttestUnsaid AttestBasis = 255
)

var attestBasisText = [...]string{AttestAny: "any", AttestVouched: "vouched", AttestChain: "chain"}

// String gives the one text form.
func (b AttestBasis) String() string {
	if int(b) < len(attestBasisText) {
		return attestBasisText[b]
	}
	return "unknown"
}

// MarshalText implements encoding.TextMarshaler.
func (b AttestBasis) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler: any, vouched or chain.
func (b *AttestBasis) UnmarshalText(text []byte) error {
	for known, name := range attestBasisText {
		if name == string(text) {
			*b = AttestBasis(known)
			return nil
		}
	}
	return errors.New("attestation basis: want any, vouched or chain")
}

// AttestRule is what an owner wants of one device when it joins.
type AttestRule struct {
	Level    AttestLevel
	Activate AttestAction
	// Basis is what results have to rest on to count.
	Basis AttestBasis
}

// Counts gives the highest level of a device that rests on what is wanted.
func (r AttestRule) Counts(a Attested, now time.Time) AttestLevel { return a.LevelOn(r.Basis, now) }

// Compare says in words what a device is and what is wanted. The basis is named where
// nothing but that is wanting.
func (r AttestRule) Compare(a Attested, now time.Time) (have, want string) {
	level := a.Level(now)
	if level >= r.Level && r.Counts(a, now) < r.Level {
		return fmt.Sprintf("%s on basis %s", level, a.BasisOf(level)), fmt.Sprintf("%s on basis %s", r.Level, r.Basis)
	}
	return level.String(), r.Level.String()
}

// Broken tells whether a device of which that level counts is below what is wanted.
func (r AttestRule) Broken(have AttestLevel) bool {
	return r.Activate != AttestIgnore && have < r.Level
}

// AttestPolicy is what an organisation wants of its devices when they join, and of
// devices that it claims. The zero value wants nothing.
type AttestPolicy struct {
	Org OrgID
	AttestRule
	Claim AttestAction
	// ValidDays is how long a result stands; 0 is DefaultAttestDays.
	ValidDays int
}

// Bounds of how long a result stands, in days.
const (
	DefaultAttestDays = 90
	MaxAttestDays     = 3650
)

// ValidFor is how long a result stands.
func (p AttestPolicy) ValidFor() time.Duration {
	days := p.ValidDays
	if days == 0 {
		days = DefaultAttestDays
	}
	return time.Duration(days) * 24 * time.Hour
}

// Rule is what the policy wants of a device: the device's own rule comes first.
func (p AttestPolicy) Rule(d Device) AttestRule {
	if d.Attested.Rule != nil {
		return *d.Attested.Rule
	}
	return p.AttestRule
}

// Attested is how a device stands, as its own row says it and every join reads it.
type Attested struct {
	// At is when the newest result that counts was taken.
	At time.Time
	// Until is the end of the result of each level, L1 first; zero: there is none.
	Until [3]time.Time
	// Basis is what each of them rests on.
	Basis [3]AttestBasis
	// Rule is what the owner wants of this device instead of what it wants of all;
	// nil: the same.
	Rule *AttestRule
}

// attestSkew is by how much servers' clocks may differ.
const attestSkew = time.Minute

// Level is what is valid at a time. Before the newest result nothing is: a clock
// that was set back proves nothing.
func (a Attested) Level(now time.Time) AttestLevel {
	level, _ := a.now(AttestAny, now)
	return level
}

// LevelOn is Level of the results that rest on that much.
func (a Attested) LevelOn(basis AttestBasis, now time.Time) AttestLevel {
	level, _ := a.now(basis, now)
	return level
}

// BasisOf gives what the result of a level rests on.
func (a Attested) BasisOf(level AttestLevel) AttestBasis {
	if level == AttestNone || int(level) > len(a.Basis) {
		return AttestAny
	}
	return a.Basis[level-1]
}

// FallsAt is when the level that is valid at a time ends; zero where none is.
func (a Attested) FallsAt(now time.Time) time.Time {
	_, until := a.now(AttestAny, now)
	return until
}

func (a Attested) now(basis AttestBasis, now time.Time) (AttestLevel, time.Time) {
	if now.Before(a.At.Add(-attestSkew)) {
		return AttestNone, time.Time{}
	}
	for i := len(a.Until) - 1; i >= 0; i-- {
		if now.Before(a.Until[i]) && a.Basis[i] >= basis {
			return AttestLevel(i + 1), a.Until[i]
		}
	}
	return AttestNone, time.Time{}
}

// AttestSkewed gives the latest time of a result that counts at a time.
func AttestSkewed(now time.Time) time.Time { return now.Add(attestSkew) }

// EvidenceKind is the form in which evidence comes.
type EvidenceKind string

// Kinds of evidence.
const (
	EvidencePossession EvidenceKind = "possession" // L1, the compact form of internal/evidence
	EvidenceBoot       EvidenceKind = "boot"       // L2, likewise
	EvidenceEATJWT     EvidenceKind = "eat-jwt"    // L3, RFC 9711 as a JWS in compact form
	EvidenceEATCOSE    EvidenceKind = "eat-cose"   // L3, the same as COSE_Sign1
)

// Level is what evidence of a kind gives, and nothing else does.
func (k EvidenceKind) Level() (level AttestLevel, ok bool) {
	switch k {
	case EvidencePossession:
		return AttestPossession, true
	case EvidenceBoot:
		return AttestBoot, true
	case EvidenceEATJWT, EvidenceEATCOSE:
		return AttestToken, true
	}
	return AttestNone, false
}

// AttestChallenge is what evidence about one device has to answer, once and in
// time.
type AttestChallenge struct {
	Random    [32]byte
	Device    DeviceID
	Org       OrgID // who asked for it: the owner then
	MadeAt    time.Time
	ExpiresAt time.Time
}

// Open tells whether it may be answered at a time: a clock that was set back opens
// nothing.
func (c AttestChallenge) Open(now time.Time) bool {
	return !now.Before(c.MadeAt.Add(-attestSkew)) && now.Before(c.ExpiresAt)
}

// Attestation is the newest result of one level of a device.
type Attestation struct {
	Device   DeviceID
	Level    AttestLevel
	Kind     EvidenceKind
	Verifier string // who verified it
	At       time.Time
	Until    time.Time
	// EndedAt is set where the result stopped counting before its time: the device
	// showed other firmware since, or the maker took back what it rests on.
	EndedAt time.Time
	// Digest is SHA-256 of the image, Version and Counter what its release says, of
	// which Release is zero where no release of the device's maker has that digest.
	Digest  [32]byte
	Version string
	Counter uint32
	Release ReleaseID
	// Evidence is SHA-256 of what was presented.
	Evidence [32]byte
	// Basis is what the result rests on, Ground in detail.
	Basis  AttestBasis
	Ground AttestGround
}

// AttestGround is what verified evidence, and who stands by that. The zero value is of
// results from before this was noted.
type AttestGround struct {
	// Key is the key that the maker registered; zero: a manifest named it.
	Key ProductKeyID
	// Chain is what the certificates of the manifest's key are worth: none, no-root,
	// failed or checked; "" where no manifest names the key, or its signer is not pinned.
	Chain manifest.Chain
	// SignerName and SignerX5TS256 are the manifest's signer: the common name of its
	// certificate, which is known while it is pinned, and the certificate's thumbprint,
	// base64url.
	SignerName    string
	SignerX5TS256 string
	// Signer is the pin, zero for none. UnpinnedAt is when it went.
	Signer     SignerID
	UnpinnedAt time.Time
}

// Pinned tells whether the manifest's signer is pinned.
func (g AttestGround) Pinned() bool { return g.Signer != 0 && g.UnpinnedAt.IsZero() }

// SelfReported tells whether what the device runs is only what its software said.
func (a Attestation) SelfReported() bool { return a.Level <= AttestPossession }

// AttestResult is a result on its way into the store.
type AttestResult struct {
	Attestation
	// Owner is who held the device when the evidence was judged.
	Owner OrgID
	// Components are what a token measured beside the application.
	Components []AttestComponent
}

// AttestComponent is the release of something that a token measured. Where several have
// one type, it is that with the lowest counter that stands for it.
type AttestComponent struct {
	Type    string // as the token calls it, such as "BL"
	Release ReleaseID
	Counter uint32
}

// AttestFallen is a level that ended by its time.
type AttestFallen struct {
	Device   DeviceID
	Owner    OrgID
	From, To AttestLevel
}

// EvidenceFragment is one part of compact evidence that came over the radio.
type EvidenceFragment struct {
	Device  DeviceID
	Message uint32 // CRC-32 of the whole
	Index   uint8
	Total   uint8
	Payload []byte
	At      time.Time
}

// Product is a make of devices, as its maker registers it: whose firmware these
// are, and how evidence about them is verified.
type Product struct {
	ID  ProductID
	Org OrgID
	// Name and Hardware are those of its signed releases.
	Name     string
	Hardware string
	// DevEUIs are the devices, of those that Org made.
	DevEUIs []EUIRange
	// Boot is how the product's element is configured for L2; nil: it is not.
	Boot      *BootProfile
	CreatedAt time.Time
}

// BootProfile names the parts of an element that verifies firmware.
type BootProfile struct {
	KeySlot    uint8 // of the private key that may be used after a verified boot only
	DigestSlot uint8 // where the digest of the verified image is
	Counter    uint8 // the monotonic counter that goes with images: 0 or 1
}

// ProductKeyUse is what a key of a product verifies.
type ProductKeyUse string

// Uses.
const (
	KeyForReleases ProductKeyUse = "release" // statements about firmware
	KeyForTokens   ProductKeyUse = "token"   // L3
	KeyForBoot     ProductKeyUse = "boot"    // L2, of one device
)

// ProductKey is a public key that a maker registered for a product, or for one
// device of it.
type ProductKey struct {
	ID      ProductKeyID
	Product ProductID
	Device  DeviceID // zero: all devices of the product
	Use     ProductKeyUse
	// Public is SubjectPublicKeyInfo, ECDSA over P-256.
	Public    []byte
	CreatedAt time.Time
}

// Release is signed firmware of a product: what evidence is held against.
type Release struct {
	ID        ReleaseID
	Product   ProductID
	Version   string
	Digest    [32]byte
	Counter   uint32
	Statement []byte // as it was signed; see internal/firmware
	Key       ProductKeyID
	At        time.Time
	// WithdrawnAt is set once the maker took it back, or the key that signed it:
	// evidence of it proves nothing, and what it proved before has ended.
	WithdrawnAt time.Time
	// Lowered is the counter down to which a device may go that has shown the release,
	// where the maker said so; nil: Counter.
	Lowered *uint32
}

// Appraisal is what evidence about a device is held against, from one read.
type Appraisal struct {
	State ActivationState
	// Manifest is the signed entry with which the device was imported; nil: none.
	Manifest []byte
	Serial   string
	// Product is nil where the maker registered none for the device.
	Product *Product
	// Keys are those of the product, and those for this device alone.
	Keys []ProductKey
	// Floor is the highest counter of a release that this device has shown, also of one
	// that was withdrawn: what the maker took back, nobody brings back what was before
	// it. Only the maker lowers it. Floors is that of what tokens measured beside it, by
	// type.
	Floor  uint32
	Floors map[string]uint32
}

// Audit events of attestation.
const (
	AuditDeviceAttested    AuditEvent = "device.attested"              // evidence was accepted
	AuditAttestRefused     AuditEvent = "device.attestation_refused"   // evidence was refused
	AuditAttestUnvouched   AuditEvent = "device.attestation_unvouched" // who vouched for a result does so no more
	AuditAttestEnded       AuditEvent = "device.attestation_ended"     // a level ended, by its time or because the maker took back what it rests on
	AuditDeviceAttestRule  AuditEvent = "device.attestation_rule"      // the owner wants something else of one device
	AuditAttestPolicy      AuditEvent = "attestation.policy_changed"   // an organisation wants something else of its devices
	AuditProductAdded      AuditEvent = "product.added"                // by its maker
	AuditProductRemoved    AuditEvent = "product.removed"              // with its keys and releases
	AuditProductKeyAdded   AuditEvent = "product.key_added"            // what verifies releases or evidence
	AuditProductKeyRemoved AuditEvent = "product.key_removed"          // nothing is verified by it any more
	AuditReleaseAdded      AuditEvent = "firmware.release_added"       // evidence may name it
	AuditReleaseWithdrawn  AuditEvent = "firmware.release_withdrawn"   // evidence may not
	AuditFloorLowered      AuditEvent = "firmware.floor_lowered"       // devices that have shown a release may go down to a counter
)
