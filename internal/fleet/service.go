package fleet

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"joinery"
)

// Service is the rules of this package over a store and a keyring. It is safe
// for concurrent use.
type Service struct {
	store     Store
	keys      Keys
	log       *slog.Logger
	now       func() time.Time
	directory *Directory

	peers sync.Mutex // see lockPeers
}

// Options are what a Service may be given besides its parts.
type Options struct {
	// Log is where warnings go; nil is nowhere.
	Log *slog.Logger
	// Now is the clock of what is written down, and of when a reset was opened;
	// nil is the system's.
	Now func() time.Time
}

// New makes a Service. Its Directory is empty and recognises nobody until the
// first Reload.
func New(store Store, keys Keys, opt Options) *Service {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	return &Service{store: store, keys: keys, log: opt.Log, now: opt.Now, directory: newDirectory(store, opt.Log)}
}

// lockPeers is held while peers, KEKs, ranges or signers are checked against each
// other and changed, so that nothing comes between the check and the change, here
// or at another server on the same state. What only takes away needs no check
// and so no lock: a server that hangs must not keep a peer from being removed or
// suspended, a KEK from being retired or a signer from being removed.
func (s *Service) lockPeers(ctx context.Context) (unlock func(), err error) {
	s.peers.Lock()
	release, err := s.store.LockFleet(ctx)
	if err != nil {
		s.peers.Unlock()
		return nil, err
	}
	return func() { release(); s.peers.Unlock() }, nil
}

// Directory is the server's view of peers, KEKs and ranges.
func (s *Service) Directory() *Directory { return s.directory }

// followTimeout bounds how long the Directory stays as it is after another
// server's change became known.
const followTimeout = 1500 * time.Millisecond

// Follow keeps the Directory up to date with what other servers change, until
// the store closes. Where for two seconds nothing says that it is, whatever the
// reason, the Directory recognises nobody until it could be read anew: better no
// answer than one to a peer that was removed elsewhere.
func (s *Service) Follow() {
	var away bool
	changed := func() {
		ctx, cancel := context.WithTimeout(context.Background(), followTimeout)
		defer cancel()
		switch err := s.directory.Reload(ctx); {
		case err != nil:
			s.log.Error("what another server changed cannot be read; peers are refused until it can", "error", err)
		case away:
			s.log.Info("changes by other servers are heard again")
			away = false
		}
	}
	lost := func(err error) {
		s.directory.doubt()
		if !away {
			s.log.Error("changes by other servers are not heard; peers are looked up anew", "error", err)
		}
		away = true
	}
	s.store.Follow(changed, s.directory.confirm, lost)
}

// timestamp is now, as the store keeps it.
func (s *Service) timestamp() time.Time { return s.now().UTC().Truncate(time.Millisecond) }

// entry begins the audit entry of a change by caller.
func (s *Service) entry(caller joinery.Caller, event joinery.AuditEvent, org joinery.OrgID, detail map[string]string) joinery.AuditEntry {
	return joinery.AuditEntry{At: s.timestamp(), Event: event, Actor: caller.Name, Org: org, Detail: detail}
}

// change writes a change of peers, KEKs or ranges and makes it take effect.
//
// A caller who goes away does not end it: a store that is left while it writes
// may have stored the change all the same, and then a removed peer would go on
// being served. So the write is waited for until the store says how it ended;
// it also ends when the store closes. Whatever it says, the store is read again,
// because a COMMIT that failed may be on disk as well.
func (s *Service) change(ctx context.Context, write func(context.Context) error) error {
	ctx = context.WithoutCancel(ctx)
	return errors.Join(write(ctx), s.reload(ctx))
}

// reload makes what the store holds take effect, also for a caller that has
// gone away meanwhile. Where it fails the directory recognises nobody until it
// could be read: better no answer than one to a peer that was removed.
func (s *Service) reload(ctx context.Context) error {
	if err := s.directory.Reload(context.WithoutCancel(ctx)); err != nil {
		return joinery.WrapError(joinery.CodeUnavailable, err, "the server could not read back what is stored, the change included; joins are refused until it can")
	}
	return nil
}

// absent gives err, that something is not in the store, after making sure that
// the directory does not go on with it.
func (s *Service) absent(ctx context.Context, err error) error {
	return errors.Join(err, s.reload(ctx))
}

// actingOrg is the organisation for which caller acts; see Caller.ActingFor.
func (s *Service) actingOrg(ctx context.Context, caller joinery.Caller, named joinery.OrgID) (joinery.OrgID, error) {
	orgs, err := s.store.Orgs(ctx)
	if err != nil {
		return 0, err
	}
	return caller.ActingFor(named, orgs)
}

// notFound is the answer for what is absent and for what is another
// organisation's: the same, so that nobody learns which.
func notFound(what string) error {
	return joinery.Errorf(joinery.CodeNotFound, "no such %s", what)
}
