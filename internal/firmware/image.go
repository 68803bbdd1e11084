package firmware

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// HeaderLen is the length of an image's header, in bytes.
//
// A signed image is the file that devices get: header 256 ‖ code ‖ signature 64. The
// signature, r ‖ s, is over SHA-256 of header and code, so that who verifies it, such
// as an element's SecureBoot command, which knows digest and signature and nothing
// else, has verified product, hardware and counter with the code.
//
// The header is: mark 16 ‖ counter 4, big-endian ‖ length of the code 4, big-endian ‖
// product 64 ‖ hardware 64 ‖ version 64, each filled up with zeros ‖ 40 zeros. Its
// length is such that code behind it stands where microcontrollers want their vectors.
const HeaderLen = 256

const (
	imageMark = "joinery-image/1\x00"
	nameLen   = 64

	atCounter = len(imageMark)
	atLength  = atCounter + 4
	atNames   = atLength + 4
)

// MaxCode bounds the code of an image, in bytes: it is more than any device has.
const MaxCode = 1 << 30

// Errors of images.
var (
	// ErrImage: not a signed image, or one that was cut off.
	ErrImage = errors.New("not a signed image")
	// ErrOrder: a release that may not follow another.
	ErrOrder = errors.New("the release may not follow that one")
)

// Header is what an image says of itself. Until the signature is verified, nobody else
// says so.
type Header struct {
	Product, Hardware, Version string
	Counter                    uint32
	Length                     uint32 // of the code, in bytes
}

// Image is a signed image but for its code.
type Image struct {
	Header
	// Digest is SHA-256 of header and code.
	Digest    [sha256.Size]byte
	Signature [SignatureLen]byte
}

// Signer signs a digest: r ‖ s.
type Signer = func(digest [sha256.Size]byte) ([SignatureLen]byte, error)

// Bytes gives the header as it stands in an image.
func (h Header) Bytes() [HeaderLen]byte {
	var b [HeaderLen]byte
	copy(b[:], imageMark)
	binary.BigEndian.PutUint32(b[atCounter:], h.Counter)
	binary.BigEndian.PutUint32(b[atLength:], h.Length)
	for i, name := range []string{h.Product, h.Hardware, h.Version} {
		copy(b[atNames+nameLen*i:], name)
	}
	return b
}

// ParseHeader reads a header, strictly: there is one form of each. ErrImage.
func ParseHeader(b []byte) (h Header, err error) {
	if len(b) < HeaderLen || !bytes.HasPrefix(b, []byte(imageMark)) {
		return h, fmt.Errorf("%w: it does not begin with the header of one", ErrImage)
	}
	h.Counter = binary.BigEndian.Uint32(b[atCounter:])
	h.Length = binary.BigEndian.Uint32(b[atLength:])
	for i, to := range []*string{&h.Product, &h.Hardware, &h.Version} {
		name := b[atNames+nameLen*i:][:nameLen]
		*to = string(bytes.TrimRight(name, "\x00"))
	}
	if err := h.check(); err != nil {
		return Header{}, err
	}
	if h.Bytes() != [HeaderLen]byte(b) {
		return Header{}, fmt.Errorf("%w: its header has bytes where zeros belong", ErrImage)
	}
	return h, nil
}

func (h Header) check() error {
	if err := (Image{Header: h}).Release().Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrImage, err)
	}
	if h.Length == 0 || h.Length > MaxCode {
		return fmt.Errorf("%w: its code has %d bytes; want 1 to %d", ErrImage, h.Length, MaxCode)
	}
	return nil
}

// Size gives the length of the whole image, in bytes.
func (h Header) Size() int64 { return HeaderLen + int64(h.Length) + SignatureLen }

// Release gives what a statement says of the image.
func (i Image) Release() Release {
	return Release{Product: i.Product, Hardware: i.Hardware, Version: i.Version, Digest: i.Digest, Counter: i.Counter}
}

// SignImage writes a signed image: header, as many bytes of code as that says, and
// signature. No more of the code is in memory at once than goes through.
func SignImage(out io.Writer, h Header, code io.Reader, sign Signer) (i Image, err error) {
	if err := h.check(); err != nil {
		return i, err
	}
	sum := sha256.New()
	both := io.MultiWriter(out, sum)
	head := h.Bytes()
	if _, err := both.Write(head[:]); err != nil {
		return i, err
	}
	if n, err := io.CopyN(both, code, int64(h.Length)); err != nil {
		return i, fmt.Errorf("the code ended after %d bytes of %d: %w", n, h.Length, err)
	}
	if n, err := code.Read(make([]byte, 1)); n > 0 || err != nil && !errors.Is(err, io.EOF) {
		return i, fmt.Errorf("the code is longer than %d bytes, or could not be read to its end: it changed meanwhile", h.Length)
	}
	i = Image{Header: h, Digest: [sha256.Size]byte(sum.Sum(nil))}
	if i.Signature, err = sign(i.Digest); err != nil {
		return i, err
	}
	_, err = out.Write(i.Signature[:])
	return i, err
}

// ReadImage reads a signed image to its end, and measures it; code gets its code, nil
// throws it away. The signature is not checked: see Verify. What follows the image is
// left unread, as in a device's memory, which is larger. ErrImage.
func ReadImage(in io.Reader, code io.Writer) (i Image, err error) {
	if code == nil {
		code = io.Discard
	}
	head := make([]byte, HeaderLen)
	switch _, err := io.ReadFull(in, head); {
	case errors.Is(err, io.EOF):
		return i, fmt.Errorf("%w: there is nothing", ErrImage)
	case err != nil:
		return i, cutOff(err)
	}
	if i.Header, err = ParseHeader(head); err != nil {
		return i, err
	}
	sum := sha256.New()
	sum.Write(head)
	if _, err := io.CopyN(io.MultiWriter(sum, code), in, int64(i.Length)); err != nil {
		return i, cutOff(err)
	}
	sum.Sum(i.Digest[:0])
	if _, err := io.ReadFull(in, i.Signature[:]); err != nil {
		return i, cutOff(err)
	}
	return i, nil
}

// cutOff makes ErrImage of an end that comes too early.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it was cut off", ErrImage)
	}
	return err
}

// Verify checks the signature, as SecureBoot does. ErrSignature.
func (i Image) Verify(key *ecdsa.PublicKey) error {
	if !VerifyRS(key, i.Digest, i.Signature) {
		return fmt.Errorf("image: %w", ErrSignature)
	}
	return nil
}

// MaxStep is by how much the counter may rise from one release to the next: devices
// count theirs up one by one.
const MaxStep = 1000

// Follows tells whether a release may come after another: of the same product and
// hardware, with a counter that rose. ErrOrder.
func (r Release) Follows(before Release) error {
	switch {
	case r.Product != before.Product || r.Hardware != before.Hardware:
		return fmt.Errorf("%w: that is of %s on %s, this of %s on %s", ErrOrder, before.Product, before.Hardware, r.Product, r.Hardware)
	case r.Counter <= before.Counter:
		return fmt.Errorf("%w: its counter is %d, that of version %s before it %d; want %d", ErrOrder, r.Counter, before.Version, before.Counter, before.Counter+1)
	case r.Counter-before.Counter > MaxStep:
		return fmt.Errorf("%w: its counter rises from %d to %d; want at most %d more, since devices count up one by one", ErrOrder, before.Counter, r.Counter, MaxStep)
	}
	return nil
}
