package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"joinery"
	"joinery/internal/keyring"
)

// GuardOptions say what a worker makes sure of by itself, whatever the server says
// that asks it.
type GuardOptions struct {
	// PerMinute is how many answers that carry keys of one device are given in a
	// minute; 0 is any number.
	PerMinute int
	// Audit gets a line for each such answer before the answer is given; nil is
	// nowhere.
	Audit *Audit
	// Log is told of devices that reach the limit.
	Log *slog.Logger
}

// Guard gives keys whose answers are counted and recorded. What it counts by is
// what the keys themselves depend on: a server that lies about a device gets no
// keys of it.
func Guard(keys keyring.Verbs, o GuardOptions) keyring.Verbs {
	return &guarded{Verbs: keys, audit: o.Audit, limit: newLimit(o.PerMinute, o.Log)}
}

// guarded passes on whatever gives out no key.
type guarded struct {
	keyring.Verbs
	limit *limit
	audit *Audit
}

// ownerOf says whose keys a key set is. An imported set's blobs are bound to its
// identifier; root keys that are derived depend on the master key and the DevEUI.
func ownerOf(ks *joinery.KeySet) owner {
	if ks.Origin == joinery.OriginDerived {
		return owner{kind: 'd', master: ks.Master, id: ks.DevEUI.Uint64()}
	}
	return owner{kind: 's', id: uint64(ks.ID)}
}

// Accept is the verb of that name, counted and recorded.
func (g *guarded) Accept(ctx context.Context, r keyring.AcceptRequest) (answer keyring.Answer, err error) {
	err = g.give(ownerOf(&r.KeySet), func() error {
		answer, err = g.Verbs.Accept(ctx, r)
		return err
	}, func() error {
		return g.audit.Record(ctx, Entry{
			Verb: "accept", Device: r.KeySet.DeviceID.String(), KeySet: r.KeySet.ID.String(), DevEUI: r.KeySet.DevEUI.String(),
			JoinEUI: r.Activation.JoinEUI.String(), JoinNonce: uint32(r.Activation.JoinNonce), NetID: r.Activation.NetID.String(),
			NSKEK: r.NSKEK.Label, ASKEK: r.ASKEK.Label, ClearNwk: r.ClearNwk, ClearApp: r.ClearApp,
		})
	})
	if err != nil {
		forget(answer)
		return keyring.Answer{}, err
	}
	return answer, nil
}

// forget clears the keys of an answer that is not given.
func forget(a keyring.Answer) {
	for _, e := range []keyring.Envelope{a.NwkSKey, a.FNwkSIntKey, a.SNwkSIntKey, a.NwkSEncKey, a.AppSKey} {
		clear(e.AESKey)
	}
}

// AppSKey is the verb of that name, counted and recorded.
func (g *guarded) AppSKey(ctx context.Context, ks joinery.KeySet, a joinery.Activation, as joinery.KEK) (key keyring.Envelope, err error) {
	err = g.give(ownerOf(&ks), func() error {
		key, err = g.Verbs.AppSKey(ctx, ks, a, as)
		return err
	}, func() error {
		return g.audit.Record(ctx, Entry{
			Verb: "appskey", Device: ks.DeviceID.String(), KeySet: ks.ID.String(), DevEUI: ks.DevEUI.String(),
			JoinEUI: a.JoinEUI.String(), JoinNonce: uint32(a.JoinNonce), NetID: a.NetID.String(), ASKEK: as.Label,
		})
	})
	if err != nil {
		clear(key.AESKey)
		return keyring.Envelope{}, err
	}
	return key, nil
}

// OwnerToken is the verb of that name, counted and recorded.
func (g *guarded) OwnerToken(ctx context.Context, d joinery.DeviceID, generation uint32) (token string, err error) {
	err = g.give(owner{kind: 't', id: uint64(d)}, func() error {
		token, err = g.Verbs.OwnerToken(ctx, d, generation)
		return err
	}, func() error {
		return g.audit.Record(ctx, Entry{Verb: "owner-token", Device: d.String()})
	})
	if err != nil {
		return "", err
	}
	return token, nil
}

// give makes an answer within the limit, and records it before anybody has it.
// What fails gave nothing out, and does not count: else whoever sends frames by
// radio could use up what a device has.
func (g *guarded) give(o owner, answer, record func() error) error {
	if !g.limit.take(o, time.Now()) {
		return fmt.Errorf("%w: more than %d answers in a minute", keyring.ErrLimit, g.limit.perMinute)
	}
	if err := answer(); err != nil {
		g.limit.giveBack(o)
		return err
	}
	if g.audit == nil {
		return nil
	}
	if err := record(); err != nil {
		return fmt.Errorf("%w: the worker's audit file: %w", keyring.ErrToken, err)
	}
	return nil
}

// Close closes the keys, and then what recorded them.
func (g *guarded) Close() error {
	err := g.Verbs.Close()
	if g.audit != nil {
		err = errors.Join(err, g.audit.Close())
	}
	return err
}
