package element

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"errors"
	"testing"

	"joinery/internal/sim/simtest"
	"joinery/lorawan"
)

// withKeys makes an element whose slots hold the given keys, as no door of it
// allows.
func withKeys(keys map[KeyID][]byte) *Element {
	e := &Element{root10: NwkKey}
	for id, key := range keys {
		e.slots[id].filled = true
		copy(e.slots[id].key[:], key)
	}
	return e
}

func TestMICVectors(t *testing.T) {
	for _, v := range simtest.Vectors(t, "mic_join_request", "mic_rejoin_request", "mic_join_accept_1_0") {
		t.Run(v.Name, func(t *testing.T) {
			e := withKeys(map[KeyID][]byte{NwkKey: v.In(t, "Key")})
			var message []byte
			if v.Has("Payload_wire") {
				message = append([]byte{lorawan.MHDRJoinAccept}, v.In(t, "Payload_wire")...)
			} else {
				message = v.In(t, "Message_wire")
			}
			checkMIC(t, e, NwkKey, nil, message, v.Out(t, "MIC"))
		})
	}
}

func checkMIC(t *testing.T, e *Element, id KeyID, prefix, message, want []byte) {
	t.Helper()
	mic, err := e.ComputeCMAC(id, prefix, message)
	if err != nil || !bytes.Equal(mic[:], want) {
		t.Fatalf("got %v, %v, want %x", mic, err, want)
	}
	if err := e.VerifyCMAC(id, prefix, message, lorawan.MIC(want)); err != nil {
		t.Errorf("VerifyCMAC: %v", err)
	}
	mic[3] ^= 1
	if err := e.VerifyCMAC(id, prefix, message, mic); !errors.Is(err, ErrMIC) {
		t.Errorf("VerifyCMAC of a flipped bit: got %v, want ErrMIC", err)
	}
}

// The MIC of a 1.1 accept has a block in front that the element makes itself,
// so the vectors go through verifyAccept.
func TestAcceptMIC11Vectors(t *testing.T) {
	for _, v := range simtest.Vectors(t, "mic_join_accept_1_1") {
		t.Run(v.Name, func(t *testing.T) {
			e := withKeys(map[KeyID][]byte{JSIntKey: v.In(t, "JSIntKey")})
			joinType := JoinType(v.In(t, "JoinReqType")[0])
			joinEUI, count := v.EUI(t, "JoinEUI"), uint16(v.Number(t, "DevNonceOrRJcount"))
			message, mic := v.In(t, "Message_wire"), lorawan.MIC(v.Out(t, "MIC"))
			if err := e.verifyAccept(joinType, joinEUI, count, true, message, mic); err != nil {
				t.Errorf("got %v", err)
			}
			if err := e.verifyAccept(joinType, joinEUI, count+1, true, message, mic); !errors.Is(err, ErrMIC) {
				t.Errorf("with another nonce: got %v, want ErrMIC", err)
			}
			if err := e.verifyAccept(joinType^1, joinEUI, count, true, message, mic); !errors.Is(err, ErrMIC) {
				t.Errorf("with another type: got %v, want ErrMIC", err)
			}
		})
	}
}

// An accept is "encrypted" with AES decryption, so the element's encryption
// turns the published ciphertext into the plaintext.
func TestEncryptVectors(t *testing.T) {
	for _, v := range simtest.Vectors(t, "encrypt_join_accept", "encrypt_rejoin_accept") {
		t.Run(v.Name, func(t *testing.T) {
			id, name := NwkKey, "Key"
			if v.Has("JSEncKey") {
				id, name = JSEncKey, "JSEncKey"
			}
			e := withKeys(map[KeyID][]byte{id: v.In(t, name)})
			plain := make([]byte, len(v.Out(t, "Cipher_wire")))
			if err := e.ecb(id, plain, v.Out(t, "Cipher_wire")); err != nil {
				t.Fatal(err)
			}
			if want := v.In(t, "Plain_wire"); !bytes.Equal(plain, want) {
				t.Errorf("got %x, want %x", plain, want)
			}
		})
	}
}

func TestBuildVectors(t *testing.T) {
	for _, v := range simtest.Vectors(t, "build_join_request") {
		t.Run(v.Name, func(t *testing.T) {
			e := withKeys(map[KeyID][]byte{NwkKey: v.In(t, "Key")})
			f := lorawan.JoinRequest{JoinEUI: v.EUI(t, "JoinEUI"), DevEUI: v.EUI(t, "DevEUI"), DevNonce: lorawan.DevNonce(v.Number(t, "DevNonce"))}
			frame := f.AppendUnsigned(nil)
			want := v.Out(t, "PHYPayload")
			checkMIC(t, e, NwkKey, nil, frame, want[len(frame):])
			if !bytes.Equal(frame, want[:len(frame)]) {
				t.Errorf("got %x, want %x", frame, want)
			}
		})
	}
	for _, v := range simtest.Vectors(t, "build_rejoin_request") {
		t.Run(v.Name, func(t *testing.T) {
			e := withKeys(map[KeyID][]byte{SNwkSIntKey: v.In(t, "Key")})
			frame, want := v.In(t, "Message_wire"), v.Out(t, "PHYPayload")
			checkMIC(t, e, SNwkSIntKey, nil, frame, want[len(frame):])
		})
	}
}

func TestRejoinMICVectors(t *testing.T) {
	for _, v := range simtest.Vectors(t, "rejoin") {
		t.Run(v.Name, func(t *testing.T) {
			e := withKeys(map[KeyID][]byte{SNwkSIntKey: v.In(t, "RequestMICKey")})
			frame := v.Out(t, "RejoinReq_PHYPayload")
			end := len(frame) - lorawan.MICLen
			checkMIC(t, e, SNwkSIntKey, nil, frame[:end], frame[end:])
		})
	}
}

// Whole accepts, published as ciphertext.
func TestAcceptVectors(t *testing.T) {
	for _, v := range simtest.Vectors(t, "build_join_accept_1_0", "build_join_accept_1_1_raw") {
		t.Run(v.Name, func(t *testing.T) {
			var e *Element
			joinType, joinEUI, count, optNeg := Join, lorawan.EUI64{}, uint16(0), v.Has("JSIntKey")
			if optNeg {
				e = withKeys(map[KeyID][]byte{JSIntKey: v.In(t, "JSIntKey"), NwkKey: v.In(t, "EncKey")})
				joinType, joinEUI = JoinType(v.In(t, "JoinReqType")[0]), v.EUI(t, "JoinEUI")
				count = uint16(v.Number(t, "DevNonceOrRJcount"))
			} else {
				e = withKeys(map[KeyID][]byte{NwkKey: v.In(t, "Key")})
			}
			plain, got, err := e.ProcessJoinAccept(nil, joinType, joinEUI, count, v.Out(t, "PHYPayload"))
			if err != nil || got != optNeg {
				t.Fatalf("OptNeg %t, %v", got, err)
			}
			if want := v.Accept(t).Append(nil); !bytes.Equal(plain, want) {
				t.Errorf("got %x, want %x", plain, want)
			}
		})
	}
}

// makeAccept makes the frame of an accept, the way that a Join Server has to:
// MIC, then AES decryption.
func makeAccept(t testing.TB, plain, macKey, encKey, prefix []byte) []byte {
	t.Helper()
	mac := withKeys(map[KeyID][]byte{JSIntKey: macKey})
	mic, err := mac.ComputeCMAC(JSIntKey, prefix, plain)
	if err != nil {
		t.Fatal(err)
	}
	frame := append(bytes.Clone(plain), mic[:]...)
	block, err := aes.NewCipher(encKey)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(frame); i += aes.BlockSize {
		block.Decrypt(frame[i:], frame[i:])
	}
	return frame
}

// prefix11 is the block in front of a 1.1 accept's MIC input.
func prefix11(t JoinType, joinEUI lorawan.EUI64, count uint16) []byte {
	b := binary.LittleEndian.AppendUint64([]byte{byte(t)}, joinEUI.Uint64())
	return binary.LittleEndian.AppendUint16(b, count)
}
