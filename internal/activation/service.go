package activation

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"time"

	"joinery"
	"joinery/internal/keyring"
)

// Service answers Join, Rejoin, AppSKey and HomeNS. It is safe for concurrent
// use; requests of one device at once are served one after the other.
type Service struct {
	store   Store
	keys    Keys
	peers   Directory
	now     func() time.Time
	log     *slog.Logger
	alarm   func(counter string)
	fence   func() error
	terms   Terms
	fetched func(context.Context, joinery.AuditEntry) error
	devices deviceLocks

	rekeying Rekeying
	attested Attested
}

// Options are what a Service may be given besides its parts.
type Options struct {
	// Now is the clock; nil is the system's. It stamps activations and opens
	// and closes windows; no nonce or counter depends on it.
	Now func() time.Time
	// Log is where counters near their end are reported; nil is slog.Default.
	Log *slog.Logger
	// Alarm is called with "DevNonce", "JoinNonce", "RJcount0" or "RJcount1"
	// each time an accepted request used a counter of which less than a tenth
	// is left.
	Alarm func(counter string)
	// Fetched writes an audit entry of an AppSKey that is about to leave, and returns
	// nil after it is on disk; nil writes none.
	Fetched func(context.Context, joinery.AuditEntry) error
	// Fence tells why no join and no rejoin may be answered now, or nil. It is
	// asked at each; nil is a fence that is never up.
	Fence func() error
	// Terms decides about service terms; nil gives none, and nothing lapses.
	Terms Terms
	// Rekeying is the state of devices that rekey; nil is none of them.
	Rekeying Rekeying
	// Attested is what owners want of their devices; nil is nothing.
	Attested Attested
}

// New makes a Service.
func New(store Store, keys Keys, peers Directory, opt Options) *Service {
	s := &Service{
		store: store, keys: keys, peers: peers, now: opt.Now, log: opt.Log, alarm: opt.Alarm, fence: opt.Fence, terms: opt.Terms, fetched: opt.Fetched,
		rekeying: opt.Rekeying, attested: opt.Attested,
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.alarm == nil {
		s.alarm = func(string) {}
	}
	if s.fetched == nil {
		s.fetched = func(context.Context, joinery.AuditEntry) error { return nil }
	}
	if s.fence == nil {
		s.fence = func() error { return nil }
	}
	return s
}

// maxAttempts is how often a request is served again from the beginning after
// it lost the swap of its key set to somebody else.
const maxAttempts = 3

// serialised runs try, unless joins are fenced off, alone among the requests of its device, until it does
// not lose its swap. Each try has the peer as it is at that moment: a peer may
// be changed or removed while a request waits.
func (s *Service) serialised(ctx context.Context, req JoinRequest, try func(context.Context, JoinRequest) (JoinAnswer, error)) (JoinAnswer, error) {
	if err := s.fence(); err != nil {
		return JoinAnswer{}, joinery.Refuse(joinery.RefusedFenced, err)
	}
	unlock, err := s.devices.lock(ctx, deviceKey{req.JoinEUI, req.DevEUI}, func(ctx context.Context) error {
		_, err := s.load(ctx, req)
		return err
	})
	if err != nil {
		return JoinAnswer{}, err
	}
	defer unlock()
	for range maxAttempts {
		if req.Peer, err = s.currentPeer(req.Peer.ID); err != nil {
			return JoinAnswer{}, err
		}
		answer, err := try(ctx, req)
		if !errors.Is(err, joinery.ErrSwapLost) {
			return answer, err
		}
	}
	return JoinAnswer{}, joinery.Errorf(joinery.CodeUnavailable, "the device is being changed by others right now; try again")
}

// currentPeer gives a peer as it is now. The door resolved it when the request
// came; that may be seconds ago.
func (s *Service) currentPeer(id joinery.PeerID) (joinery.Peer, error) {
	peer, ok := s.peers.Peer(id)
	if !ok || peer.Suspended {
		return joinery.Peer{}, joinery.Errorf(joinery.CodeUnknownSender, "this peer was removed")
	}
	return peer, nil
}

// commit makes an accepted request durable. Nothing of its answer may leave
// before commit returned nil.
func (s *Service) commit(ctx context.Context, state joinery.ActivationState, nonces joinery.Nonces, a joinery.Activation) error {
	err := s.store.CommitActivation(ctx, joinery.ActivationCommit{
		KeySet: state.KeySet.ID, Version: state.KeySet.Version, Nonces: nonces, Activation: a, Begin: s.begin(state.Device, a.At),
	})
	if err != nil {
		return storeError(err)
	}
	s.watchCounters(state, nonces, a)
	return nil
}

// freeze writes down everything that an answer is made from.
func (s *Service) freeze(req JoinRequest, state joinery.ActivationState, typ joinery.JoinType, count uint16, hash [32]byte) joinery.Activation {
	var random [8]byte
	rand.Read(random[:]) // never fails (crypto/rand)
	id := joinery.NewActivationID()
	a := joinery.Activation{
		ID:     id,
		At:     s.now().UTC().Truncate(time.Millisecond),
		Device: state.Device.ID,
		KeySet: state.KeySet.ID,
		Owner:  state.Device.Ownership.Org,
		Peer:   req.Peer.ID,

		FrameHash: hash,
		Type:      typ,
		JoinEUI:   req.JoinEUI,
		DevEUI:    req.DevEUI,
		OptNeg:    req.DLSettings.OptNeg(),
		Root:      state.KeySet.Root10,
		Count:     count,

		JoinNonce:  state.KeySet.Nonces.JoinNonce + 1,
		NetID:      req.NetID,
		NSID:       req.NSID,
		DevAddr:    req.DevAddr,
		DLSettings: req.DLSettings,
		RxDelay:    req.RxDelay,
		CFList:     req.CFList,

		SessionKeyID: newSessionKeyID(id, random),
		ASID:         state.Binding.ASID,
		BindingEpoch: state.Binding.Epoch,
		Policy:       appSKeyPolicy(req.Peer, *state.Binding),
	}
	a.SendSessionKeyID = sendSessionKeyID(req.Peer, a.Policy)
	return a
}

// compute makes the answer of a in the keyring, under the KEKs that a names.
func (s *Service) compute(ctx context.Context, frame []byte, state joinery.ActivationState, session *joinery.Activation, a joinery.Activation, w wrapping) (JoinAnswer, error) {
	sealed, err := s.keys.Accept(ctx, keyring.AcceptRequest{
		KeySet: state.KeySet, Frame: frame, Activation: a, Session: session,
		NSKEK: w.ns, ASKEK: w.as, ClearNwk: w.clearNwk, ClearApp: w.clearApp,
	})
	if err != nil {
		return JoinAnswer{}, keyringError(err)
	}
	answer := JoinAnswer{
		PHYPayload: sealed.PHYPayload,
		NwkSKey:    sealed.NwkSKey, FNwkSIntKey: sealed.FNwkSIntKey,
		SNwkSIntKey: sealed.SNwkSIntKey, NwkSEncKey: sealed.NwkSEncKey,
		AppSKey: sealed.AppSKey,
	}
	if a.SendSessionKeyID {
		answer.SessionKeyID = a.SessionKeyID[:]
	}
	return answer, nil
}
