package device

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"math/big"
	"testing"

	"joinery/internal/sim/chip"
	"joinery/internal/sim/chip/tnglora"
	"joinery/internal/sim/element"
	"joinery/internal/sim/simtest"
	"joinery/lorawan"
)

// twins makes two devices with the same keys: one whose element is a chip that it
// reaches by commands, and one of software.
func twins(t *testing.T, version lorawan.MACVersion) (onChip, direct *Device, roots simtest.Roots, c tnglora.Content) {
	t.Helper()
	rand.Read(roots.NwkKey[:])
	rand.Read(roots.AppKey[:])
	c = tnglora.Content{
		Serial: [chip.SerialSize]byte(tnglora.SerialOf(devEUI)), JoinEUI: joinEUI, DevEUI: devEUI,
		NwkKey: roots.NwkKey[:], AppKey: roots.AppKey[:], DeviceKey: make([]byte, 32), RekeyKey: make([]byte, 32),
	}
	rand.Read(c.DeviceKey[1:])
	rand.Read(c.RekeyKey)
	m, err := tnglora.Image(c)
	if err != nil {
		t.Fatal(err)
	}
	e1, err := element.OnChip(chip.New(m, chip.Options{}), true)
	if err != nil {
		t.Fatal(err)
	}
	e2, err := element.Provision(joinEUI, devEUI, c.NwkKey, c.AppKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(e2.SetDeviceKey(c.DeviceKey), e2.SetSlotKey(c.RekeyKey, c.Serial[:])); err != nil {
		t.Fatal(err)
	}
	for i, e := range []*element.Element{e1, e2} {
		// A draw that is the same for both.
		n := lorawan.DevNonce(41)
		d, err := New(e, version, Options{Draw: func() lorawan.DevNonce { n++; return n }})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			onChip = d
		} else {
			direct = d
		}
	}
	return onChip, direct, roots, c
}

func same(t *testing.T, what string, a, b []byte, errA, errB error) []byte {
	t.Helper()
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Fatalf("%s: by commands %x, %v; directly %x, %v", what, a, errA, b, errB)
	}
	return a
}

// What a device does by chip commands is, byte for byte, what one of software does, in
// every version, in joins, rejoins, and in the keys that both have then.
func TestChipAndSoftwareAgree(t *testing.T) {
	for v := lorawan.MAC1_0_0; v <= lorawan.MAC1_1; v++ {
		onChip, direct, roots, _ := twins(t, v)
		for nonce := lorawan.JoinNonce(1); nonce < 4; nonce++ {
			a, errA := onChip.JoinRequest()
			b, errB := direct.JoinRequest()
			f, err := lorawan.ParseJoinRequest(same(t, "join-request", a, b, errA, errB))
			if err != nil {
				t.Fatal(err)
			}
			s, accept := answer(roots, 0xFF, uint16(f.DevNonce), nonce, v.NegotiatesOptions() && nonce > 1)
			acceptA, errA := onChip.HandleAccept(accept)
			acceptB, errB := direct.HandleAccept(accept)
			if errA != nil || errB != nil || acceptA != acceptB {
				t.Fatalf("%v: accept: %+v, %v; %+v, %v", v, acceptA, errA, acceptB, errB)
			}
			if !holdsAll(onChip, roots.SessionKeys(s)) || !holdsAll(direct, roots.SessionKeys(s)) {
				t.Fatalf("%v: session keys differ", v)
			}
			if onChip.HoldsSessionKey(element.AppSKey, make([]byte, 16)) {
				t.Error("a chip holds any key")
			}
		}
		if !v.Rejoins() {
			continue
		}
		for _, rejoin := range []lorawan.RejoinType{lorawan.Rejoin0, lorawan.Rejoin1, lorawan.Rejoin2} {
			a, errA := onChip.RejoinRequest(rejoin)
			b, errB := direct.RejoinRequest(rejoin)
			same(t, "rejoin-request", a, b, errA, errB)
		}
		_, accept := answer(roots, 0, 1, 4, true)
		acceptA, errA := onChip.HandleAccept(accept)
		acceptB, errB := direct.HandleAccept(accept)
		if errA != nil || errB != nil || acceptA != acceptB {
			t.Fatalf("accept of a rejoin: %+v, %v; %+v, %v", acceptA, errA, acceptB, errB)
		}
	}
}

// A chip derives new roots as software does, and refuses a MAC that is not its own
// without a change.
func TestChipRekeys(t *testing.T) {
	onChip, direct, _, c := twins(t, lorawan.MAC1_1)
	instruction := lorawan.Rekey{JoinEUI: lorawan.EUI64{0xEC, 7: 1}, Cookie: lorawan.Cookie{1, 2, 3}}
	command := []byte{0x1C, 4, 0, 0, c.Serial[8], c.Serial[0], c.Serial[1]}
	mac := sha256.Sum256(append(bytes.Clone(c.RekeyKey), command...))
	for _, d := range []*Device{onChip, direct} {
		for _, wrong := range [][]byte{make([]byte, 32), make([]byte, 31)} {
			if err := d.SetAuthMAC(wrong); err != nil {
				t.Fatal(err)
			}
			if err := d.Rekey(instruction); err == nil || len(d.State().Rekeyed) != 0 || d.JoinEUI() != joinEUI {
				t.Errorf("a wrong MAC of %d bytes: %v, %+v", len(wrong), err, d.State())
			}
		}
		if err := errors.Join(d.SetAuthMAC(mac[:]), d.Rekey(instruction)); err != nil {
			t.Fatal(err)
		}
	}
	a, errA := onChip.JoinRequest()
	b, errB := direct.JoinRequest()
	same(t, "join-request under new roots", a, b, errA, errB)
	if got := onChip.element.JoinEUI(); got != instruction.JoinEUI || onChip.JoinEUI() != got {
		t.Errorf("the chip's JoinEUI is %v", got)
	}
}

func TestChipSigns(t *testing.T) {
	onChip, _, _, c := twins(t, lorawan.MAC1_0_4)
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), c.DeviceKey)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("challenge"))
	sig, err := onChip.Sign(digest)
	if err != nil || !ecdsa.Verify(&key.PublicKey, digest[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		t.Errorf("signature of the device key: %v", err)
	}
}
