package evidence

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Fragments carry compact evidence over LoRaWAN, a few bytes an uplink:
//
//	index 1, from 0 ‖ total 1 ‖ CRC-32 (IEEE) of the whole 4, big-endian ‖ payload
//
// They may come in any order and more than once. The CRC names the message and
// finds one that was put together wrongly; it protects against nobody.
const (
	fragmentHead = 6
	// MaxFragments bounds the fragments of one message, MaxMessage its length.
	MaxFragments = 64
	MaxMessage   = 512
)

// Fragment is one part of a message.
type Fragment struct {
	Index, Total uint8
	Message      uint32 // CRC-32 of the whole
	Payload      []byte
}

// ErrFragment says that bytes are no fragment, or fragments no message.
var ErrFragment = errors.New("fragment")

// Split makes fragments of at most size bytes each, head included.
func Split(message []byte, size int) ([][]byte, error) {
	room := size - fragmentHead
	if room < 1 || len(message) == 0 || len(message) > MaxMessage || len(message) > room*MaxFragments {
		return nil, fmt.Errorf("%w: want a message of 1 to %d bytes, in at most %d fragments of more than %d", ErrFragment, MaxMessage, MaxFragments, fragmentHead)
	}
	total := (len(message) + room - 1) / room
	sum := crc32.ChecksumIEEE(message)
	var out [][]byte
	for i := range total {
		f := binary.BigEndian.AppendUint32([]byte{byte(i), byte(total)}, sum)
		out = append(out, append(f, message[i*room:min(len(message), (i+1)*room)]...))
	}
	return out, nil
}

// ParseFragment reads a fragment. The result does not keep b. ErrFragment.
func ParseFragment(b []byte) (f Fragment, err error) {
	if len(b) <= fragmentHead || len(b) > fragmentHead+MaxMessage {
		return f, fmt.Errorf("%w: want %d bytes before its payload, and that", ErrFragment, fragmentHead)
	}
	f = Fragment{Index: b[0], Total: b[1], Message: binary.BigEndian.Uint32(b[2:]), Payload: append([]byte(nil), b[fragmentHead:]...)}
	if f.Total == 0 || f.Total > MaxFragments || f.Index >= f.Total {
		return f, fmt.Errorf("%w: want an index below the total, and that at most %d", ErrFragment, MaxFragments)
	}
	return f, nil
}

// Join puts the fragments of one message together, in any order. It is nil where
// some are missing. ErrFragment where they do not belong together.
func Join(fragments []Fragment) ([]byte, error) {
	if len(fragments) == 0 {
		return nil, nil
	}
	total, message := fragments[0].Total, fragments[0].Message
	parts := make([][]byte, total)
	for _, f := range fragments {
		if f.Total != total || f.Message != message || f.Index >= total {
			return nil, fmt.Errorf("%w: of another message than the rest", ErrFragment)
		}
		parts[f.Index] = f.Payload
	}
	var whole []byte
	for _, p := range parts {
		if p == nil {
			return nil, nil
		}
		whole = append(whole, p...)
	}
	if len(whole) > MaxMessage || crc32.ChecksumIEEE(whole) != message {
		return nil, fmt.Errorf("%w: what they make has another checksum", ErrFragment)
	}
	return whole, nil
}
