package keyring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"joinery"
	"joinery/internal/seal"
)

// Errors of the verbs. They say nothing about keys.
var (
	// ErrMIC: the frame was not made with a key of this key set.
	ErrMIC = errors.New("keyring: MIC does not match")
	// ErrIntegrity: a sealed blob does not open, or belongs to something else:
	// damaged, swapped with another row, or sealed by another keyring.
	ErrIntegrity = errors.New("keyring: sealed blob does not open here")
	// ErrNoKEK: there is no KEK to wrap a session key under, and the request
	// does not carry the consent to hand it out in the clear.
	ErrNoKEK = errors.New("keyring: no KEK for a session key, and no consent to send it in the clear")
	// ErrUnknownMaster: the key set is derived from a master key that is not here.
	ErrUnknownMaster = errors.New("keyring: no such master key")
	// ErrNoRoot: the key set lacks the root key that the request needs.
	ErrNoRoot = errors.New("keyring: the key set has no such root key")
	// ErrTransport: imported ciphertext was not made for this keyring's
	// transport key, or was damaged on the way.
	ErrTransport = errors.New("keyring: not sealed to this server's transport key, or damaged")
	// ErrPIN: the token refused the PIN. It counts such tries and locks itself
	// after a few, so nobody tries again but by an operator's order.
	ErrPIN = errors.New("keyring: the token refused the PIN")
)

// Verbs is what a Keyring offers, for those who may have it from another process;
// see package remote.
type Verbs interface {
	VerifyJoin(ctx context.Context, ks joinery.KeySet, frame []byte) error
	VerifyRejoin(ctx context.Context, ks joinery.KeySet, frame []byte, sessions []joinery.Activation) (int, error)
	Accept(ctx context.Context, r AcceptRequest) (Answer, error)
	AppSKey(ctx context.Context, ks joinery.KeySet, a joinery.Activation, as joinery.KEK) (Envelope, error)
	AcceptHash(ctx context.Context, ks joinery.KeySet, a joinery.Activation) ([32]byte, error)
	OwnerToken(ctx context.Context, d joinery.DeviceID, generation uint32) (string, error)
	CheckOwnerToken(ctx context.Context, d joinery.DeviceID, generation uint32, presented string) (bool, error)
	WebhookSecret(ctx context.Context, id joinery.WebhookID, generation uint32) (string, error)
	SignWebhook(ctx context.Context, id joinery.WebhookID, generation uint32, content []byte) (string, error)
	LogKey(ctx context.Context, generation uint32) (public []byte, err error)
	SignCheckpoint(ctx context.Context, generation uint32, text []byte) (signature []byte, err error)
	SealRoots(ctx context.Context, h seal.Header, in []RootsIn) ([]RootsOut, error)
	Rewrap(ctx context.Context, h seal.Header, in []RewrapIn) ([]RootsOut, error)
	Handover(ctx context.Context, to seal.PublicKey, in []HandoverIn) (seal.Header, []seal.SealedRow, error)
	SignStatement(ctx context.Context, content []byte) (signature, public []byte, err error)
	AuthMAC(ctx context.Context, ks joinery.KeySet) ([32]byte, error)
	SealKEK(ctx context.Context, h seal.Header, in seal.SealedKEK, peer joinery.PeerID, version uint32) (joinery.Sealed, error)
	IsKEK(ctx context.Context, h seal.Header, in seal.SealedKEK, kek joinery.KEK) (bool, error)
	CheckKeySet(ctx context.Context, ks joinery.KeySet) error
	CheckKEK(ctx context.Context, kek joinery.KEK) error
	TransportKey() seal.PublicKey
	Masters() []Master
	Custody() []Custody
	Generations() Generations
	Ready(ctx context.Context) error
	Close() error
}

var _ Verbs = (*Keyring)(nil)

// AcceptRequest asks for the answer to one join-request or rejoin-request. The
// same request gives the same answer, byte for byte, at any later time.
type AcceptRequest struct {
	KeySet joinery.KeySet
	// Frame is the whole PHYPayload of the request; its MIC is verified first.
	Frame []byte
	// Activation is what the answer is made from. Of it the keyring uses Type,
	// JoinEUI, OptNeg, Root, Count, Policy and the fields of the accept.
	Activation joinery.Activation
	// Session is the activation whose SNwkSIntKey signed a rejoin-request of
	// type 0 or 2; nil for every other request.
	Session *joinery.Activation
	// NSKEK wraps the network session keys, ASKEK the AppSKey. A zero KEK is a
	// refusal (ErrNoKEK), unless the flag below says that both owner and
	// operator consented.
	NSKEK    joinery.KEK
	ASKEK    joinery.KEK
	ClearNwk bool
	ClearApp bool
}

// Envelope is one session key on its way out: wrapped by RFC 3394 under the KEK
// that KEKLabel names (24 bytes), or in the clear (16 bytes, KEKLabel empty)
// where the request carried the consent. A zero Envelope is no key.
type Envelope struct {
	KEKLabel string
	AESKey   []byte
}

// IsZero tells whether there is no key.
func (e Envelope) IsZero() bool { return len(e.AESKey) == 0 }

// String keeps a key that travels in the clear out of logs.
func (e Envelope) String() string { return "envelope(" + e.KEKLabel + ")" }

// Format implements fmt.Formatter: every verb prints String.
func (e Envelope) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, e.String()) }

// LogValue implements slog.LogValuer.
func (e Envelope) LogValue() slog.Value { return slog.StringValue(e.String()) }

// MarshalJSON refuses: a key leaves by the backend's own writer only.
func (e Envelope) MarshalJSON() ([]byte, error) {
	return nil, errors.New("keyring: an envelope is not marshalled")
}

// Answer is a join-accept and its session keys, sealed for their recipients.
type Answer struct {
	// PHYPayload is the encrypted join-accept, 17 or 33 bytes, MHDR first.
	PHYPayload []byte
	// NwkSKey is set for OptNeg 0, the three below it for OptNeg 1.
	NwkSKey     Envelope
	FNwkSIntKey Envelope
	SNwkSIntKey Envelope
	NwkSEncKey  Envelope
	// AppSKey is zero where Activation.Policy is AppSKeyByID.
	AppSKey Envelope
}
