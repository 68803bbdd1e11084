package client

import (
	"time"

	"joinery"
	"joinery/lorawan"
)

// NewAttestChallenge asks for something that a device is to answer.
type NewAttestChallenge struct {
	ValidSeconds uint32 `json:"validSeconds,omitzero" minimum:"60" maximum:"604800" example:"3600" doc:"For how long it may be answered; without it an hour. A device with a small radio takes long"`
}

// AttestChallenge is what evidence about one device has to answer, once and in time.
type AttestChallenge struct {
	Challenge []byte           `json:"challenge" doc:"32 random bytes"`
	Device    joinery.DeviceID `json:"device" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device that it is about"`
	JoinEUI   lorawan.EUI64    `json:"joinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"JoinEUI"`
	DevEUI    lorawan.EUI64    `json:"devEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"DevEUI"`
	ExpiresAt time.Time        `json:"expiresAt" doc:"Until when it may be answered"`
}

// NewEvidence is what a device shows.
type NewEvidence struct {
	Kind     string `json:"kind" enum:"possession,boot,eat-jwt,eat-cose" doc:"possession (L1) and boot (L2): compact evidence of an element; eat-jwt and eat-cose (L3): a token of a root of trust (RFC 9711)"`
	Evidence []byte `json:"evidence" minLength:"1" maxLength:"16384" doc:"At most 8 KiB; of a JWT its text"`
}

// NewEvidenceFragment is a part of compact evidence, as it came in an uplink.
type NewEvidenceFragment struct {
	Fragment []byte `json:"fragment" minLength:"1" maxLength:"1024" doc:"Index, total, checksum of the whole, payload; see docs/attestation.md"`
}

// EvidenceProgress is how much of compact evidence has come.
type EvidenceProgress struct {
	Have        uint32       `json:"have" doc:"How many fragments are there"`
	Total       uint32       `json:"total" doc:"How many there have to be"`
	Attestation *Attestation `json:"attestation,omitempty" doc:"How the device stands, once all has come and was accepted"`
}

// Attestation is how a device stands: what was shown of its element and firmware, and
// what its owner wants.
type Attestation struct {
	Device  joinery.DeviceID    `json:"device" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device"`
	Level   string              `json:"level" enum:"L0,L1,L2,L3" doc:"What stands now"`
	Until   time.Time           `json:"until,omitzero" doc:"Until when it does"`
	Counts  string              `json:"counts" enum:"L0,L1,L2,L3" doc:"The highest level that rests on what the owner wants results to rest on: that is held against its rule"`
	Below   bool                `json:"below" doc:"Whether that is below what the owner wants"`
	Wanted  AttestRule          `json:"wanted" doc:"What the owner wants of this device"`
	OwnRule bool                `json:"ownRule" doc:"Whether of this device alone, and not of all"`
	Results []AttestationResult `json:"results" nullable:"false" doc:"The newest result of each level, the lowest first"`
}

// AttestationResult is the newest result of one level.
type AttestationResult struct {
	Level        string            `json:"level" enum:"L1,L2,L3" doc:"The level"`
	Kind         string            `json:"kind" enum:"possession,boot,eat-jwt,eat-cose" doc:"In what form the evidence came"`
	Verifier     string            `json:"verifier" example:"js.example.com" doc:"Who verified it"`
	At           time.Time         `json:"at" doc:"When"`
	Until        time.Time         `json:"until" doc:"Until when it stands"`
	EndedAt      time.Time         `json:"endedAt,omitzero" doc:"When it ended before that: the device showed other firmware, or the maker took back what it rests on"`
	SHA256       string            `json:"sha256" example:"8d969eef6ecad3c29a3a629280e686cf0c3f5d5a86aff3ca12020c923adc6c92" doc:"Digest of the firmware"`
	SelfReported bool              `json:"selfReported" doc:"Whether the firmware is only what the device's software said that it is"`
	Version      string            `json:"version,omitzero" doc:"Version of the signed release with that digest; absent: there is none"`
	Release      joinery.ReleaseID `json:"release,omitzero" pattern:"^rel_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"rel_ and 13 characters" doc:"That release"`
	Counter      uint32            `json:"counter" doc:"The firmware's anti-rollback counter"`
	Evidence     string            `json:"evidence" doc:"SHA-256 of what was presented, in hexadecimal"`
	Basis        string            `json:"basis" enum:"any,vouched,chain" doc:"What it rests on: chain, certificates of the key that verified it lead to a root that is pinned; vouched, the signer of the manifest that names the key is pinned, or the maker registered the key; any, nobody stands by the key now, or it was not noted"`
	RestsOn      AttestationGround `json:"restsOn" doc:"The same in detail"`
}

// AttestationGround is what verified evidence, and who stands by that.
type AttestationGround struct {
	Key          string               `json:"key" enum:"manifest,registered,unknown" doc:"Where the key comes from that verified the evidence: the device's manifest, or its maker registered it; unknown for results of before this was noted"`
	ProductKey   joinery.ProductKeyID `json:"productKey,omitzero" pattern:"^pky_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"pky_ and 13 characters" doc:"The registered key"`
	SignerName   string               `json:"signerName,omitzero" example:"Log Signer 002" doc:"The manifest's signer, as its certificate calls it; absent: it was not pinned"`
	SignerSHA256 string               `json:"signerSHA256,omitzero" example:"8d969eef6ecad3c29a3a629280e686cf0c3f5d5a86aff3ca12020c923adc6c92" doc:"SHA-256 of that certificate, in hexadecimal"`
	Pinned       bool                 `json:"pinned" doc:"Whether that signer is pinned"`
	UnpinnedAt   time.Time            `json:"unpinnedAt,omitzero" doc:"When it was unpinned, after the evidence was judged"`
	Chain        string               `json:"chain" enum:"checked,none,no-root,failed,unknown" doc:"The certificates of the key in the manifest: checked, they lead to a root that is pinned with the signer, and name the element and the slot; none, the manifest has none; no-root, no root is pinned; failed, they lead to none of the roots, or name something else; unknown, there is no pinned signer to ask for"`
}

// AttestRule is what an owner wants of a device when it joins.
type AttestRule struct {
	Level    string `json:"level" enum:"L0,L1,L2,L3" doc:"The lowest level that will do"`
	Activate string `json:"activate" enum:"none,warn,refuse" doc:"What becomes of joins and rejoins below it: nothing, a warning where the device is shown, or they are refused"`
	Basis    string `json:"basis,omitzero" enum:"any,vouched,chain" doc:"What results have to rest on to count, see AttestationResult; without it, as the policy of the organisation has it"`
}

// AttestPolicy is what an organisation wants of its devices.
type AttestPolicy struct {
	Level     string `json:"level" enum:"L0,L1,L2,L3" doc:"The lowest level that will do"`
	Activate  string `json:"activate" enum:"none,warn,refuse" doc:"What becomes of joins and rejoins of a device below it"`
	Claim     string `json:"claim" enum:"none,warn,refuse" doc:"What becomes of claims of a device below it; a warning is in the event of the claim"`
	Basis     string `json:"basis,omitzero" enum:"any,vouched,chain" doc:"What results have to rest on to count, see AttestationResult; without it as it was, and vouched where nothing was said before"`
	ValidDays uint32 `json:"validDays" minimum:"1" maximum:"3650" example:"90" doc:"For how many days a result stands"`
}

// Product is a make of devices, as its maker registers it.
type Product struct {
	ID           joinery.ProductID `json:"id" pattern:"^prd_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"prd_ and 13 characters" doc:"Identifier"`
	Organisation joinery.OrgID     `json:"organisation" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Its maker"`
	Name         string            `json:"name" example:"meter-3" doc:"Its name, as signed releases have it"`
	Hardware     string            `json:"hardware" example:"rev-c" doc:"Its hardware's id, likewise"`
	DevEUIs      []EUIRange        `json:"devEUIs" nullable:"false" doc:"Its devices, of those that the organisation made"`
	Boot         *BootProfile      `json:"boot,omitempty" doc:"Which parts of its element verify firmware; absent: it does not, and there is no L2"`
	CreatedAt    time.Time         `json:"createdAt" doc:"When it was registered"`
}

// NewProduct registers a product.
type NewProduct struct {
	Name     string       `json:"name" minLength:"1" maxLength:"64" pattern:"^[0-9A-Za-z][0-9A-Za-z._+-]{0,63}$" patternDescription:"letters, digits, dots, dashes, underscores and plus signs" example:"meter-3" doc:"Its name, as signed releases have it"`
	Hardware string       `json:"hardware" minLength:"1" maxLength:"64" pattern:"^[0-9A-Za-z][0-9A-Za-z._+-]{0,63}$" patternDescription:"letters, digits, dots, dashes, underscores and plus signs" example:"rev-c" doc:"Its hardware's id, likewise"`
	DevEUIs  []EUIRange   `json:"devEUIs" nullable:"false" minItems:"1" maxItems:"200" doc:"Ranges of DevEUIs: those of them that the organisation made are of the product. No other product of it may have them"`
	Boot     *BootProfile `json:"boot,omitempty" doc:"Which parts of its element verify firmware, where it does"`
}

// BootProfile names the parts of an element that verifies firmware.
type BootProfile struct {
	KeySlot    uint8 `json:"keySlot" maximum:"15" doc:"Slot of the private key that may be used after a verified boot only"`
	DigestSlot uint8 `json:"digestSlot" maximum:"15" doc:"Slot in which the digest of the verified image is"`
	Counter    uint8 `json:"counter" maximum:"1" doc:"The monotonic counter that goes with images"`
}

// ProductKey is a public key that verifies releases of a product, or evidence of its
// devices.
type ProductKey struct {
	ID        joinery.ProductKeyID `json:"id" pattern:"^pky_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"pky_ and 13 characters" doc:"Identifier"`
	Use       string               `json:"use" enum:"release,token,boot" doc:"What it verifies: statements about firmware, tokens (L3), or what the element of one device signs (L2)"`
	Device    joinery.DeviceID     `json:"device,omitzero" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"Of which device alone; absent: of all of the product"`
	Public    []byte               `json:"public" doc:"SubjectPublicKeyInfo, ECDSA over P-256"`
	CreatedAt time.Time            `json:"createdAt" doc:"When it was registered"`
}

// NewProductKey registers a key.
type NewProductKey struct {
	Use    string           `json:"use" enum:"release,token,boot" doc:"What it verifies: statements about firmware, tokens (L3), or what the element of one device signs (L2)"`
	Device joinery.DeviceID `json:"device,omitzero" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"Of which device alone, one that the organisation made; absent: of all of the product. A boot key is one device's"`
	Public []byte           `json:"public" minLength:"1" maxLength:"1024" doc:"SubjectPublicKeyInfo, ECDSA over P-256"`
}

// FirmwareRelease is a signed release of a product.
type FirmwareRelease struct {
	ID          joinery.ReleaseID    `json:"id" pattern:"^rel_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"rel_ and 13 characters" doc:"Identifier"`
	Version     string               `json:"version" example:"3.1.0" doc:"Version"`
	SHA256      string               `json:"sha256" example:"8d969eef6ecad3c29a3a629280e686cf0c3f5d5a86aff3ca12020c923adc6c92" doc:"Digest of the image"`
	Counter     uint32               `json:"counter" doc:"Anti-rollback counter"`
	Key         joinery.ProductKeyID `json:"key" pattern:"^pky_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"pky_ and 13 characters" doc:"The key that verified it"`
	Statement   string               `json:"statement" doc:"What was signed"`
	At          time.Time            `json:"at" doc:"When it was registered"`
	WithdrawnAt time.Time            `json:"withdrawnAt,omitzero" doc:"When it was withdrawn; absent: it was not"`
	Floor       *uint32              `json:"floor,omitempty" doc:"The counter down to which devices may go that have shown it, where that was lowered"`
}

// FirmwareFloor lowers the counter below which devices do not go.
type FirmwareFloor struct {
	Counter uint32 `json:"counter" doc:"The lowest counter that is accepted; below the release's own"`
}

// NewFirmwareRelease registers a signed release.
type NewFirmwareRelease struct {
	Statement string `json:"statement" minLength:"1" maxLength:"4096" doc:"The signed statement: the text of a joinery-firmware/1 file"`
}
