// Package fuota sends firmware to a simulated device over LoRaWAN: in fragments with
// parity (TS004), over downlinks and uplinks that get lost.
package fuota

import (
	"crypto/aes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"

	"joinery/internal/fragment"
	"joinery/internal/sim/aesmode"
)

// Descriptor says for which firmware a session is: the first four bytes of SHA-256 over
// product ‖ 00 ‖ hardware. A device takes no other.
func Descriptor(product, hardware string) [4]byte {
	sum := sha256.Sum256([]byte(product + "\x00" + hardware))
	return [4]byte(sum[:4])
}

// MIC is that of a block in version 2, under a device's DataBlockIntKey.
func MIC(key [16]byte, s fragment.Setup, block []byte) ([4]byte, error) {
	cipher, err := aes.NewCipher(key[:])
	if err != nil {
		return [4]byte{}, err
	}
	var sum [16]byte
	first := s.MICBlock(len(block))
	aesmode.NewCMAC(cipher).Sum(&sum, first[:], block)
	return [4]byte(sum[:4]), nil
}

// Receiver is a device's side. One session at a time, of index 0.
type Receiver struct {
	Version    fragment.Version
	Descriptor [4]byte
	// Memory is how many bytes there are for a block.
	Memory int
	// Key is DataBlockIntKey, for version 2.
	Key [16]byte

	setup   fragment.Setup
	decoder *fragment.Decoder
	// counted is the highest SessionCnt that was seen, plus one.
	counted int
	wrong   bool
}

// Downlink takes what came on fragment.Port, and gives the uplink that answers; nil:
// none.
func (r *Receiver) Downlink(payload []byte) []byte {
	if len(payload) == 0 {
		return nil
	}
	switch fragment.CID(payload[0]) {
	case fragment.CIDSetup:
		return r.setUp(payload)
	case fragment.CIDData:
		return r.data(payload)
	case fragment.CIDStatus:
		index, all, err := fragment.ParseStatusRequest(payload)
		if err != nil {
			return nil
		}
		return r.status(index, all)
	}
	return nil
}

func (r *Receiver) setUp(payload []byte) []byte {
	s, algorithm, err := fragment.ParseSetup(payload, r.Version)
	if err != nil {
		return nil
	}
	// Asked again: the answer was lost. In version 1 nothing tells two sessions for blocks
	// of one length apart, but that nobody asks again once fragments came: then it is
	// another one, and what came of the first must not get into it.
	if r.decoder != nil && s == r.setup && (r.Version >= fragment.V2 || r.decoder.Received() == 0) {
		return fragment.SetupAnswer(0, 0)
	}
	wrong := uint8(0)
	for bit, is := range map[uint8]bool{
		fragment.SetupNoAlgorithm: algorithm != 0, fragment.SetupNoIndex: s.Index != 0,
		fragment.SetupNoMemory:        int(s.NbFrag)*int(s.FragSize) > r.Memory,
		fragment.SetupWrongDescriptor: s.Descriptor != r.Descriptor,
		fragment.SetupReplayed:        r.Version >= fragment.V2 && int(s.SessionCnt) < r.counted,
	} {
		if is {
			wrong |= bit
		}
	}
	if wrong == 0 {
		decoder, err := fragment.NewDecoder(r.Version, int(s.NbFrag), int(s.FragSize), 0)
		if err != nil || int(s.Padding) >= int(s.NbFrag)*int(s.FragSize) { // the session that there is goes on
			return fragment.SetupAnswer(s.Index, fragment.SetupNoMemory)
		}
		r.decoder, r.setup, r.counted, r.wrong = decoder, s, int(s.SessionCnt)+1, false
	}
	return fragment.SetupAnswer(s.Index, wrong)
}

func (r *Receiver) data(payload []byte) []byte {
	index, n, data, err := fragment.ParseData(payload)
	if err != nil || r.decoder == nil || index != r.setup.Index {
		return nil
	}
	before := r.decoder.Done()
	if !r.decoder.Add(n, data) {
		return nil
	}
	if !before && r.Version >= fragment.V2 {
		mic, err := MIC(r.Key, r.setup, r.decoder.Block(int(r.setup.Padding)))
		r.wrong = err != nil || mic != r.setup.MIC
	}
	if r.Version < fragment.V2 || !r.setup.AckWanted {
		return nil
	}
	return fragment.BlockReceived(index, r.wrong)
}

func (r *Receiver) status(index uint8, all bool) []byte {
	if r.decoder == nil || index != r.setup.Index {
		if r.Version < fragment.V2 {
			return nil
		}
		return fragment.Status{Index: index, NoSession: true}.Bytes(r.Version)
	}
	if r.decoder.Done() && !all {
		return nil
	}
	return fragment.Status{Index: index, Received: r.decoder.Received(), Missing: r.decoder.Missing(), NoMemory: r.decoder.Full(), MICError: r.wrong}.Bytes(r.Version)
}

// Block gives the block that came, whole; nil before, and where its MIC is wrong.
func (r *Receiver) Block() []byte {
	if r.decoder == nil || r.wrong {
		return nil
	}
	return r.decoder.Block(int(r.setup.Padding))
}

// Air is what gets lost of what is sent.
type Air struct {
	// Loss is the share of messages that are lost, either way, 0 to 1.
	Loss   float64
	random *rand.Rand

	Sent, Lost int
}

// NewAir makes one that loses the same messages for the same seed.
func NewAir(loss float64, seed uint64) *Air {
	return &Air{Loss: loss, random: rand.New(rand.NewPCG(seed, 0x66756F7461))}
}

// send sends a downlink, and gives what came back; nil: nothing did.
func (a *Air) send(r *Receiver, payload []byte) []byte {
	a.Sent++
	if a.random.Float64() < a.Loss {
		a.Lost++
		return nil
	}
	answer := r.Downlink(payload)
	if answer == nil || a.random.Float64() < a.Loss {
		return nil
	}
	return answer
}

// Options of Send.
type Options struct {
	Version    fragment.Version
	FragSize   int
	Descriptor [4]byte
	// Parity is how many parity fragments are sent at most, as a share of the block's.
	Parity float64
	// SessionCnt and Key are of version 2.
	SessionCnt uint16
	Key        [16]byte
	// Progress is called now and then; nil: nobody is told.
	Progress func(Progress)
}

// Progress is how far a transfer is.
type Progress struct {
	Fragments int `json:"fragments"` // of the block
	Sent      int `json:"sent"`      // parity included
	Parity    int `json:"parity"`
	// Received is what the device last said that it has.
	Received int `json:"received"`
}

// Errors of a transfer.
var (
	// ErrLost: more was lost than the parity makes up for.
	ErrLost = errors.New("too much was lost on the way: the image never came together")
	// ErrSetup: the device takes no such session.
	ErrSetup = errors.New("the device refuses the session")
)

// tries is how often what must be answered is sent.
const tries = 50

// Send sends a block, and tells how it went: nil once the device said that it has it.
func Send(air *Air, r *Receiver, block []byte, o Options) (p Progress, err error) {
	e, err := fragment.NewEncoder(o.Version, block, o.FragSize)
	if err != nil {
		return p, err
	}
	s := fragment.Setup{
		NbFrag: uint16(e.Count()), FragSize: uint8(o.FragSize), Padding: uint8(e.Padding(len(block))), Descriptor: o.Descriptor,
		AckWanted: o.Version >= fragment.V2, SessionCnt: o.SessionCnt,
	}
	if o.Version >= fragment.V2 {
		if s.MIC, err = MIC(o.Key, s, block); err != nil {
			return p, err
		}
	}
	if err := setUp(air, r, s, o.Version); err != nil {
		return p, err
	}
	p.Fragments = e.Count()
	last := min(e.Count()+int(o.Parity*float64(e.Count())), fragment.MaxIndex)
	const ask = 32 // after so many parity fragments the device is asked what it has
	for n := 1; n <= last; n++ {
		answer := air.send(r, fragment.Data(0, n, e.Fragment(n)))
		p.Sent, p.Parity = n, max(0, n-e.Count())
		if done, err := received(answer); done || err != nil {
			return tell(p, o, e.Count()), err
		}
		if n >= e.Count() && (n-e.Count())%ask == 0 || n == last {
			done, err := asked(air, r, o.Version, &p)
			if done || err != nil {
				return tell(p, o, p.Received), err
			}
		}
		if n%64 == 0 {
			tell(p, o, p.Received)
		}
	}
	return tell(p, o, p.Received), fmt.Errorf("%w: %d fragments and %d of parity were sent, of which it has %d", ErrLost, p.Fragments, p.Parity, p.Received)
}

func tell(p Progress, o Options, has int) Progress {
	p.Received = has
	if o.Progress != nil {
		o.Progress(p)
	}
	return p
}

func setUp(air *Air, r *Receiver, s fragment.Setup, v fragment.Version) error {
	for range tries {
		_, wrong, err := fragment.ParseSetupAnswer(air.send(r, s.Bytes(v)))
		if err != nil {
			continue // lost
		}
		if wrong != 0 {
			return fmt.Errorf("%w: status %02X", ErrSetup, wrong)
		}
		return nil
	}
	return fmt.Errorf("%w: no answer to the setup", ErrLost)
}

// received reads a FragDataBlockReceivedReq of version 2.
func received(answer []byte) (done bool, err error) {
	_, wrong, err := fragment.ParseBlockReceived(answer)
	if err != nil {
		return false, nil //nolint:nilerr // nothing came, or something else
	}
	if wrong {
		return false, errMIC
	}
	return true, nil
}

var errMIC = errors.New("the device has a block whose MIC is wrong")

// asked asks a device what it has.
func asked(air *Air, r *Receiver, v fragment.Version, p *Progress) (done bool, err error) {
	for range tries {
		status, err := fragment.ParseStatus(air.send(r, fragment.StatusRequest(0, true)), v)
		if err != nil {
			continue // lost
		}
		p.Received = status.Received
		switch {
		case status.MICError:
			return false, errMIC
		case status.NoMemory:
			return false, fmt.Errorf("%w: the device has no memory for as many parity fragments", ErrLost)
		}
		return status.Missing == 0, nil
	}
	return false, fmt.Errorf("%w: no answer from the device", ErrLost)
}
