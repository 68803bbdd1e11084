package hsm

// #include <stdlib.h>
import "C"

import (
	"encoding/binary"
	"unsafe"
)

// cBuffer is memory of the C library, to which parameters of PKCS #11 can point:
// the client has no type for these.
type cBuffer struct{ bytes []byte }

// word is the length of a CK_ULONG, and of a pointer.
const word = int(unsafe.Sizeof(C.ulong(0)))

func newCBuffer(n int) cBuffer {
	return cBuffer{unsafe.Slice((*byte)(C.calloc(1, C.size_t(n))), n)}
}

// set puts data in place.
func (b cBuffer) set(data []byte) { copy(b.bytes, data) }

// free clears the buffer and gives it back.
func (b cBuffer) free() {
	clear(b.bytes)
	C.free(unsafe.Pointer(unsafe.SliceData(b.bytes)))
}

// address gives where the buffer is, as C has it.
func (b cBuffer) address() []byte {
	return ulong(uint(uintptr(unsafe.Pointer(unsafe.SliceData(b.bytes)))))
}

// ulong gives a CK_ULONG as C has it.
func ulong(n uint) []byte {
	b := make([]byte, word)
	if word == 4 {
		binary.NativeEndian.PutUint32(b, uint32(n))
	} else {
		binary.NativeEndian.PutUint64(b, uint64(n))
	}
	return b
}

// derivationData gives CK_KEY_DERIVATION_STRING_DATA: the first n bytes of b.
func (b cBuffer) derivationData(n int) []byte {
	return append(b.address(), ulong(uint(n))...)
}

// boolTemplate gives an array of CK_ATTRIBUTE, each with a boolean. The memory is
// never given back: templates are made once.
func boolTemplate(attributes map[uint]bool) []byte {
	var array []byte
	for typ, value := range attributes {
		b := newCBuffer(1)
		if value {
			b.bytes[0] = 1
		}
		array = append(array, ulong(typ)...)
		array = append(array, b.address()...)
		array = append(array, ulong(1)...)
	}
	return array
}
