package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"joinery"
	"joinery/internal/evidence"
	"joinery/internal/firmware"
	"joinery/lorawan"
)

// presented is evidence as it came, read and not believed.
type presented struct {
	kind  joinery.EvidenceKind
	bytes []byte
	// tag is the beginning of the challenge that it answers, in compact evidence;
	// nonce all of it, in a token.
	tag        []byte
	possession evidence.Possession
	boot       evidence.Boot
	token      token
}

// read takes evidence of a kind apart. CodeInvalid.
func read(kind joinery.EvidenceKind, b []byte) (p presented, err error) {
	p = presented{kind: kind, bytes: b}
	if len(b) == 0 || len(b) > evidence.MaxLen {
		return p, joinery.Errorf(joinery.CodeInvalid, "evidence: want 1 to %d bytes", evidence.MaxLen)
	}
	switch kind {
	case joinery.EvidencePossession:
		p.possession, err = evidence.ParsePossession(b)
		p.tag = p.possession.Tag[:]
	case joinery.EvidenceBoot:
		p.boot, err = evidence.ParseBoot(b)
		p.tag = p.boot.Tag[:]
	case joinery.EvidenceEATJWT, joinery.EvidenceEATCOSE:
		p.token, err = readToken(kind, b)
		p.tag = p.token.nonce
		if err == nil && len(p.tag) != evidence.ChallengeLen {
			err = errors.New("the token's nonce is no challenge of ours")
		}
	default:
		err = errors.New("want kind possession, boot, eat-jwt or eat-cose")
	}
	if err != nil {
		return p, joinery.Errorf(joinery.CodeInvalid, "evidence: %s", err.Error())
	}
	return p, nil
}

// digests are those that releases are wanted for.
func (p presented) digests() [][sha256.Size]byte {
	switch p.kind {
	case joinery.EvidencePossession:
		return [][sha256.Size]byte{p.possession.Digest}
	case joinery.EvidenceBoot:
		return [][sha256.Size]byte{p.boot.Digest}
	}
	var list [][sha256.Size]byte
	for _, c := range p.token.measured() {
		if len(c.Value) == sha256.Size {
			list = append(list, [sha256.Size]byte(c.Value))
		}
	}
	return list
}

// shown is what evidence proved.
type shown struct {
	digest  [sha256.Size]byte
	counter uint32
	release *joinery.Release // nil: none has the digest, at L1 only
	expires time.Time        // of the token; zero: not said
	ground  ground           // of the key that verified it
	// components are the releases of what a token measured beside the application.
	components []joinery.AttestComponent
}

// refusal is why evidence proves nothing: a word for the log, and a text.
type refusal struct{ word, text string }

func (r refusal) Error() string { return r.text }

func no(word, text string) error { return refusal{word, text} }

// appraise judges what answers a challenge about a device. found are the releases
// of the device's maker that have one of the digests, pins the signers of manifests.
// The error is a refusal.
func (p presented) appraise(challenge joinery.AttestChallenge, a joinery.Appraisal, found []joinery.Release, pins []joinery.Signer, now time.Time) (shown, error) {
	about := evidence.About{Challenge: challenge.Random, JoinEUI: a.State.Device.JoinEUI, DevEUI: a.State.Device.DevEUI}
	refs := references{found: found, appraisal: a}
	switch p.kind {
	case joinery.EvidencePossession:
		return p.appraisePossession(about, a, refs, pins)
	case joinery.EvidenceBoot:
		return p.appraiseBoot(about, a, refs, pins)
	default:
		return p.appraiseToken(about, a, refs, now)
	}
}

func (p presented) appraisePossession(about evidence.About, a joinery.Appraisal, refs references, pins []joinery.Signer) (shown, error) {
	key, on, err := manifestKey(a, deviceKeySlot, pins)
	if err != nil {
		return shown{}, err
	}
	e := p.possession
	if !firmware.VerifyRS(key, e.SigningDigest(about), e.Signature) {
		return shown{}, no("signature", "the signature is not one of the device key that the manifest of this device names, over this challenge")
	}
	release, err := refs.find(e.Digest)
	if err != nil {
		return shown{}, err
	}
	if release != nil && release.Counter != e.Counter {
		return shown{}, no("counter", "the counter is not that of the release with this digest")
	}
	return shown{digest: e.Digest, counter: e.Counter, release: release, ground: on}, refs.notBelow(e.Counter)
}

func (p presented) appraiseBoot(about evidence.About, a joinery.Appraisal, refs references, pins []joinery.Signer) (shown, error) {
	e := p.boot
	if a.Product == nil || a.Product.Boot == nil {
		return shown{}, no("product", "the maker has registered no product with an element that verifies firmware for this device")
	}
	if b := *a.Product.Boot; b.KeySlot != e.KeySlot || b.DigestSlot != e.DigestSlot || b.Counter != e.CounterID {
		return shown{}, no("configuration", "the slots or the counter are not those that the maker registered for the product")
	}
	if a.Serial != "" && a.Serial != hex.EncodeToString(e.Serial[:]) {
		return shown{}, no("foreign", "the serial number is that of another element")
	}
	if err := e.CheckConfig(); err != nil {
		return shown{}, no("configuration", err.Error())
	}
	keys, err := keysFor(a, joinery.KeyForBoot)
	if err != nil {
		return shown{}, err
	}
	if len(keys.all) == 0 {
		key, on, err := manifestKey(a, strconv.Itoa(int(e.KeySlot)), pins)
		if err != nil {
			return shown{}, err
		}
		keys.all, keys.on = append(keys.all, key), append(keys.on, on)
	}
	digest := e.SigningDigest(about)
	i := slices.IndexFunc(keys.all, func(k *ecdsa.PublicKey) bool { return firmware.VerifyRS(k, digest, e.Signature) })
	if i < 0 {
		return shown{}, no("signature", "the signature is not one of this device's element over this challenge and the state that the evidence says")
	}
	release, err := refs.must(e.Digest)
	if err != nil {
		return shown{}, err
	}
	if release.Counter < e.Counter {
		return shown{}, no("downgraded", "the release is older than what the element's own counter allows")
	}
	return shown{digest: e.Digest, counter: release.Counter, release: release, ground: keys.on[i]}, refs.notBelow(release.Counter)
}

func (p presented) appraiseToken(about evidence.About, a joinery.Appraisal, refs references, now time.Time) (shown, error) {
	t := p.token
	if !bytes.Equal(t.nonce, about.Challenge[:]) {
		return shown{}, no("nonce", "the token answers another challenge")
	}
	keys, err := keysFor(a, joinery.KeyForTokens)
	if err != nil {
		return shown{}, err
	}
	if len(keys.all) == 0 {
		return shown{}, no("key", "the maker has registered no key for tokens of this device or its product")
	}
	by := slices.IndexFunc(keys.all, t.verify)
	if by < 0 {
		return shown{}, no("signature", "no key that the maker registered for this device signed the token")
	}
	if err := checkUEID(t.ueid, about.DevEUI, keys.own); err != nil {
		return shown{}, err
	}
	switch {
	case !t.expires.IsZero() && !now.Before(t.expires):
		return shown{}, no("stale", "the token has expired")
	case t.begins.After(joinery.AttestSkewed(now)):
		return shown{}, no("stale", "the token is not valid yet, by this server's clock")
	}
	if err := t.part.check("the token"); err != nil {
		return shown{}, err
	}
	for _, name := range slices.Sorted(maps.Keys(t.submodules)) {
		if err := t.submodules[name].check("a submodule of the token"); err != nil {
			return shown{}, err
		}
	}
	application := t.application()
	if application < 0 {
		return shown{}, no("measurements", "the token measures nothing, or several things of which none is the application (ARoT)")
	}
	s := shown{expires: t.expires, ground: keys.on[by]}
	for i, c := range t.measured() { // the token's own come first
		if len(c.Value) != sha256.Size {
			return shown{}, no("measurements", "a measurement of the token is no SHA-256")
		}
		release, err := refs.must([sha256.Size]byte(c.Value))
		if err != nil {
			return shown{}, err
		}
		if i == application {
			s.digest, s.counter, s.release = release.Digest, release.Counter, release
		} else {
			if err := refs.componentNotBelow(c.Type, release.Counter); err != nil {
				return shown{}, err
			}
			s.components = append(s.components, joinery.AttestComponent{Type: c.Type, Release: release.ID, Counter: release.Counter})
		}
	}
	return s, refs.notBelow(s.counter)
}

// check finds what says that the software which was measured may not be what runs.
func (p part) check(who string) error {
	switch {
	case p.opaque:
		return no("submodule", who+" is a token of its own, or a digest: what it measures is not verified here; have the root of trust say it as claims")
	case p.debug == 0:
		return no("debug", who+" says that the device can be debugged")
	case p.lifecycle >= 0 && !p.secured():
		return no("debug", who+" says that the device is not in the life cycle of a secured one")
	}
	return nil
}

// A UEID begins with its type (RFC 9711 §4.2.1); an EUI-64 is a MAC address's.
const ueidEUI = 0x02

// checkUEID binds a token to its device: by its DevEUI, or by a key that is this
// device's alone.
func checkUEID(ueid []byte, devEUI lorawan.EUI64, own bool) error {
	switch {
	case len(ueid) == 9 && ueid[0] == ueidEUI && bytes.Equal(ueid[1:], devEUI[:]):
		return nil
	case len(ueid) > 0 && ueid[0] == ueidEUI:
		return no("foreign", "the token is another device's")
	case own && len(ueid) >= 7 && len(ueid) <= 33:
		return nil
	}
	return no("foreign", "the token does not say which device it is of: its ueid has to be 02 and the DevEUI, or a key has to be registered for this device alone")
}

// keys verify evidence of a device.
type keys struct {
	all []*ecdsa.PublicKey
	on  []ground // as many
	own bool     // they are this device's alone
}

// keysFor gives the keys for a use: where there are some for this device alone, only
// those.
func keysFor(a joinery.Appraisal, use joinery.ProductKeyUse) (k keys, err error) {
	for _, own := range []bool{true, false} {
		for _, p := range a.Keys {
			if p.Use != use || (p.Device != 0) != own {
				continue
			}
			key, err := parseKey(p.Public)
			if err != nil {
				return k, err
			}
			k.all, k.on, k.own = append(k.all, key), append(k.on, registered(p.ID)), own
		}
		if len(k.all) > 0 {
			break
		}
	}
	return k, nil
}

// parseKey reads SubjectPublicKeyInfo of ECDSA over P-256.
func parseKey(spki []byte) (*ecdsa.PublicKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(spki)
	key, ok := parsed.(*ecdsa.PublicKey)
	if err != nil || !ok || key.Curve != elliptic.P256() {
		return nil, joinery.Errorf(joinery.CodeInvalid, "key: want SubjectPublicKeyInfo of ECDSA over P-256")
	}
	return key, nil
}

// references are the releases that have a digest of the evidence.
type references struct {
	found     []joinery.Release
	appraisal joinery.Appraisal
}

// find gives the release of the device's product with a digest; nil where no product
// of the maker has one.
func (r references) find(digest [sha256.Size]byte) (*joinery.Release, error) {
	product := r.appraisal.Product
	elsewhere := false
	for i, f := range r.found {
		switch {
		case f.Digest != digest:
		case product == nil || f.Product != product.ID:
			elsewhere = true
		case !f.WithdrawnAt.IsZero():
			return nil, no("withdrawn", "the maker has withdrawn the release with this digest")
		default:
			return &r.found[i], nil
		}
	}
	if elsewhere && product != nil {
		return nil, no("wrong-product", "the firmware is of another product than the device")
	}
	return nil, nil
}

// must is find for evidence that is worth nothing without a release.
func (r references) must(digest [sha256.Size]byte) (*joinery.Release, error) {
	if r.appraisal.Product == nil {
		return nil, no("product", "the maker has registered no product for this device")
	}
	release, err := r.find(digest)
	if err == nil && release == nil {
		err = no("unknown-firmware", "no signed release of the product has the digest that was measured")
	}
	return release, err
}

// notBelow refuses a counter below what the device has shown.
func (r references) notBelow(counter uint32) error {
	if counter < r.appraisal.Floor {
		return no("downgraded", "the firmware's counter is below that of a release which this device has shown before")
	}
	return nil
}

// componentNotBelow is the same of what a token measures beside the application: of
// each type by itself, since they are updated by themselves.
func (r references) componentNotBelow(component string, counter uint32) error {
	if counter < r.appraisal.Floors[component] {
		return no("downgraded", "the counter of a component beside the application is below that of a release of it which this device has shown before")
	}
	return nil
}
