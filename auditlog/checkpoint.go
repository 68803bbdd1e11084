package auditlog

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Checkpoint is a state of the log (c2sp.org/tlog-checkpoint).
type Checkpoint struct {
	Origin string
	Size   int64
	Root   [sha256.Size]byte
	// Continues are lines of the log that a restore ended: up to Size each has the
	// leaves that this one has.
	Continues []Line
}

// Line is a line of the log that ended.
type Line struct {
	Origin string
	Size   int64
	Root   [sha256.Size]byte
}

// continues begins the extension lines of a checkpoint that name such lines.
const continues = "continues "

// Errors of checkpoints.
var (
	// ErrKey: a key is not of the form NAME+HASH+BASE64 of c2sp.org/signed-note, or
	// not of a kind that is known here.
	ErrKey = errors.New("log key: want NAME+HASH+BASE64 of an Ed25519 key")
	// ErrCheckpoint: a checkpoint is damaged, or its signature is not the log's.
	ErrCheckpoint = errors.New("checkpoint: damaged, or not signed by this key")
)

// Text is what is signed.
func (c Checkpoint) Text() []byte {
	b := fmt.Appendf(nil, "%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
	for _, l := range c.Continues {
		b = fmt.Appendf(b, "%s%s %d %s\n", continues, l.Origin, l.Size, base64.StdEncoding.EncodeToString(l.Root[:]))
	}
	return b
}

// ParseCheckpoint reads the text of a checkpoint. Extension lines that are not
// known are passed over.
func ParseCheckpoint(text string) (c Checkpoint, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 4 || lines[len(lines)-1] != "" || lines[0] == "" {
		return c, ErrCheckpoint
	}
	c.Origin = lines[0]
	if c.Size, c.Root, err = sizeAndRoot(lines[1], lines[2]); err != nil {
		return Checkpoint{}, err
	}
	for _, line := range lines[3 : len(lines)-1] {
		rest, ok := strings.CutPrefix(line, continues)
		if !ok {
			continue
		}
		f := strings.Split(rest, " ")
		if len(f) != 3 {
			return Checkpoint{}, ErrCheckpoint
		}
		l := Line{Origin: f[0]}
		if l.Size, l.Root, err = sizeAndRoot(f[1], f[2]); err != nil {
			return Checkpoint{}, err
		}
		c.Continues = append(c.Continues, l)
	}
	return c, nil
}

func sizeAndRoot(size, root string) (n int64, h [sha256.Size]byte, err error) {
	n, err = strconv.ParseInt(size, 10, 64)
	b, err2 := base64.StdEncoding.DecodeString(root)
	if err != nil || err2 != nil || n < 0 || strconv.FormatInt(n, 10) != size || len(b) != len(h) {
		return 0, h, ErrCheckpoint
	}
	return n, [sha256.Size]byte(b), nil
}

// LineName is the origin of a line of a log: the first has the log's own name.
func LineName(origin string, line int) string {
	if line == 1 {
		return origin
	}
	return fmt.Sprintf("%s/%d", origin, line)
}

// Key is the public key of a log. It signs all of its lines.
type Key struct {
	name   string
	public ed25519.PublicKey
}

// NewKey is the key of the log of that name.
func NewKey(name string, public ed25519.PublicKey) Key { return Key{name, public} }

// ParseKey reads NAME+HASH+BASE64 (c2sp.org/signed-note).
func ParseKey(text string) (Key, error) {
	text = strings.TrimSpace(text)
	v, err := note.NewVerifier(text)
	if err != nil {
		return Key{}, ErrKey
	}
	_, encoded, _ := strings.Cut(strings.TrimPrefix(text, v.Name()+"+"), "+")
	b, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(b) != 1+ed25519.PublicKeySize {
		return Key{}, ErrKey
	}
	return Key{v.Name(), b[1:]}, nil
}

// String is the text form of the key.
func (k Key) String() string {
	text, err := note.NewEd25519VerifierKey(k.name, k.public)
	if err != nil {
		return ""
	}
	return text
}

// verifier is that of the line which a checkpoint is of.
func (k Key) verifier(origin string) (note.Verifier, error) {
	if rest, ok := strings.CutPrefix(origin, k.name+"/"); origin != k.name {
		if n, err := strconv.Atoi(rest); !ok || err != nil || n < 2 {
			return nil, fmt.Errorf("%w: it is of the log %q, and the key of %q", ErrCheckpoint, origin, k.name)
		}
	}
	text, err := note.NewEd25519VerifierKey(origin, k.public)
	if err != nil {
		return nil, err
	}
	return note.NewVerifier(text)
}

// Open checks the log's signature of a checkpoint, and those of witnesses: it
// gives the names of the witnesses that signed.
func (k Key) Open(signed string, witnesses ...note.Verifier) (c Checkpoint, cosigned []string, err error) {
	origin, _, _ := strings.Cut(signed, "\n")
	v, err := k.verifier(origin)
	if err != nil {
		return c, nil, err
	}
	n, err := note.Open([]byte(signed), note.VerifierList(append([]note.Verifier{v}, witnesses...)...))
	if err != nil {
		return c, nil, fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	byLog := false
	for _, s := range n.Sigs {
		if s.Name == v.Name() && s.Hash == v.KeyHash() {
			byLog = true
		} else {
			cosigned = append(cosigned, s.Name)
		}
	}
	if !byLog {
		return c, nil, fmt.Errorf("%w: the log's own signature is missing", ErrCheckpoint)
	}
	c, err = ParseCheckpoint(n.Text)
	return c, cosigned, err
}

// cosignatureV1 is the kind of key of c2sp.org/tlog-cosignature.
const cosignatureV1 = 0x04

// NewWitness reads the key of a witness, NAME+HASH+BASE64, whose signatures are
// those of c2sp.org/tlog-cosignature: a time of 8 bytes and Ed25519 over that and
// the checkpoint.
func NewWitness(text string) (note.Verifier, error) {
	name, rest, _ := strings.Cut(strings.TrimSpace(text), "+")
	hash, encoded, ok := strings.Cut(rest, "+")
	b, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(b) != 1+ed25519.PublicKeySize || b[0] != cosignatureV1 || name == "" {
		return nil, fmt.Errorf("%w for cosignatures (c2sp.org/tlog-cosignature)", ErrKey)
	}
	w := witness{name: name, hash: keyHash(name, b), public: b[1:]}
	if hash != fmt.Sprintf("%08x", w.hash) {
		return nil, fmt.Errorf("%w: its hash is not that of name and key", ErrKey)
	}
	return w, nil
}

// WitnessKey is the text form of a witness's key.
func WitnessKey(name string, public ed25519.PublicKey) string {
	b := append([]byte{cosignatureV1}, public...)
	return fmt.Sprintf("%s+%08x+%s", name, keyHash(name, b), base64.StdEncoding.EncodeToString(b))
}

func keyHash(name string, key []byte) uint32 {
	h := sha256.Sum256(append([]byte(name+"\n"), key...))
	return binary.BigEndian.Uint32(h[:])
}

// witness verifies cosignatures.
type witness struct {
	name   string
	hash   uint32
	public ed25519.PublicKey
}

// Name implements note.Verifier.
func (w witness) Name() string { return w.name }

// KeyHash implements note.Verifier.
func (w witness) KeyHash() uint32 { return w.hash }

// Verify implements note.Verifier.
func (w witness) Verify(msg, signature []byte) bool {
	const timeLen = 8
	if len(signature) != timeLen+ed25519.SignatureSize {
		return false
	}
	at := binary.BigEndian.Uint64(signature)
	return ed25519.Verify(w.public, CosignedText(at, msg), signature[timeLen:])
}

// CosignedText is what a witness signs of a checkpoint at a time, in seconds since
// 1970.
func CosignedText(at uint64, checkpoint []byte) []byte {
	return append(fmt.Appendf(nil, "cosignature/v1\ntime %d\n", at), checkpoint...)
}
