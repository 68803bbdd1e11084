package rekey

import (
	"context"

	"joinery"
	"joinery/internal/exportfile"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// target is where new root keys go.
type target struct {
	server    joinery.JoinServer // as it was pinned; zero: a recipient
	recipient joinery.RecipientID
	name      string
	key       seal.PublicKey
	// thumbprint names the key as people compare it: KID of a Join Server's transport
	// key, that of RFC 7638 of a recipient's.
	thumbprint string
	ranges     []joinery.EUIRange    // of JoinEUIs that are its own, where that was said
	kind       joinery.RecipientKind // of a recipient
}

// target finds a pinned Join Server, or a recipient of the owner's, of which only one
// is named.
func (s *Service) target(ctx context.Context, owner joinery.OrgID, to joinery.JoinServerID, recipient joinery.RecipientID) (target, error) {
	if recipient == 0 {
		j, err := s.server(ctx, to)
		if err != nil {
			return target{}, err
		}
		return serverTarget(j)
	}
	r, err := s.authority.RecipientOf(ctx, owner, recipient)
	if err != nil {
		return target{}, err
	}
	public, err := exportfile.ParseRecipient([]byte(r.Key))
	if err != nil || public.Thumbprint() != r.Thumbprint {
		return target{}, joinery.WrapError(joinery.CodeConflict, err, "the key of that recipient cannot be used any more; register it again")
	}
	if r.SHA1 {
		public = public.WithSHA1()
	}
	key, err := public.TransportKey()
	if err != nil {
		return target{}, joinery.Errorf(joinery.CodeConflict, "new root keys go to RSA keys alone: register one of 3072 bits or more as a recipient")
	}
	return target{recipient: r.ID, name: r.Name, key: key, thumbprint: r.Thumbprint, kind: r.Kind}, nil
}

func serverTarget(j joinery.JoinServer) (target, error) {
	key, err := seal.ParsePublicKeyDER(j.TransportKey)
	if err != nil {
		return target{}, joinery.WrapError(joinery.CodeInternal, err, "the Join Server's transport key is damaged; pin it again")
	}
	return target{server: j, name: j.Name, key: key, thumbprint: key.KID(), ranges: j.Theirs}, nil
}

// isOf tells whether an order names t, and the key that it had then.
func (t target) isOf(o joinery.RekeyOrder) bool {
	return o.Server == t.server.ID && o.Recipient == t.recipient && (o.Thumbprint == "" || o.Thumbprint == t.thumbprint)
}

// Request is an order that waits for another person.
type Request struct {
	joinery.RekeyOrder
	Device joinery.Device
}

// Requests gives the orders of the caller's organisation that wait for another person,
// from above after on, in the order of their ids; next is where to go on, 0 at the end.
// Those whose time is over are left out.
func (s *Service) Requests(ctx context.Context, caller joinery.Caller, after joinery.RekeyID, limit int) (list []Request, next joinery.RekeyID, err error) {
	org, err := s.authority.Acting(ctx, caller)
	if err != nil {
		return nil, 0, err
	}
	orders, err := s.store.RekeyRequests(ctx, org, after, limit)
	if err != nil {
		return nil, 0, err
	}
	for _, o := range orders {
		if o.StateAt(s.now()) != joinery.RekeyRequested {
			continue
		}
		state, err := s.store.RekeyingDevice(ctx, o.Device)
		if err != nil {
			return nil, 0, err
		}
		list = append(list, Request{o, state.Device})
	}
	if n := len(orders); n > 0 && n == limit {
		next = orders[n-1].ID
	}
	return list, next, nil
}

// Approval is what another person looked at: exactly these devices, the JoinEUI at
// which they are to join, the key to which their new root keys go, and whether the
// next rekeying keys go there, too.
type Approval struct {
	Devices    []joinery.DeviceID
	JoinEUI    lorawan.EUI64
	Thumbprint string
	RekeyKey   bool
}

// Approve arms the orders of devices that wait for another person, all or none.
// CodeConflict where what the approver looked at is not what was asked for.
func (s *Service) Approve(ctx context.Context, caller joinery.Caller, a Approval) (orders []joinery.RekeyOrder, err error) {
	var entries []joinery.AuditEntry
	seen := map[joinery.DeviceID]bool{}
	err = s.waiting(ctx, caller, a.Devices, func(state joinery.ActivationState, o joinery.RekeyOrder) error {
		if err := owners(state, o); err != nil {
			return err
		}
		switch {
		case o.Rekey.JoinEUI != a.JoinEUI || o.Thumbprint != a.Thumbprint || o.RekeyKey != a.RekeyKey:
			return joinery.Errorf(joinery.CodeConflict, "what you approve is not what was asked for of device %s: another JoinEUI, another key, or rekeying keys that go, too, or do not; look at the request again", state.Device.DevEUI)
		case seen[o.Device]:
			return joinery.Errorf(joinery.CodeInvalid, "device %s is named twice", state.Device.DevEUI)
		}
		if err := s.authority.Another(ctx, caller, o.Owner, o.Person); err != nil {
			return err
		}
		entry := s.orderEntry(caller, joinery.AuditRekeyApproved, state.Device, o)
		entry.Detail["requested_by"] = o.By
		seen[o.Device] = true
		orders, entries = append(orders, o), append(entries, entry)
		return nil
	})
	if err != nil {
		return nil, err
	}
	keys, err := s.pinnedKeys(ctx, orders)
	if err != nil {
		return nil, err
	}
	if err := s.store.ApproveRekeys(ctx, orders, keys, entries); err != nil { // which looks at the keys once more
		return nil, err
	}
	for i := range orders {
		if orders[i], err = s.store.RekeyOrder(ctx, orders[i].ID); err != nil {
			return nil, err
		}
	}
	s.hurry()
	return orders, nil
}

// pinnedKeys gives the transport key of each Join Server to which orders go, and refuses
// an order to one that has another key by now than the one that it names, and that the
// approver looked at.
func (s *Service) pinnedKeys(ctx context.Context, orders []joinery.RekeyOrder) (keys map[joinery.JoinServerID][]byte, err error) {
	list, err := s.store.JoinServers(ctx)
	if err != nil {
		return nil, err
	}
	keys = map[joinery.JoinServerID][]byte{}
	kids := map[joinery.JoinServerID]string{}
	for _, j := range list {
		keys[j.ID], kids[j.ID] = j.TransportKey, kid(j)
	}
	for _, o := range orders {
		if now, pinned := kids[o.Server]; pinned && o.Thumbprint != "" && o.Thumbprint != now {
			return nil, joinery.Errorf(joinery.CodeConflict, "%s has another transport key by now than order %s names: reject the order, and have it given anew", o.To, o.ID)
		}
	}
	return keys, nil
}

// Reject ends the orders of devices that wait for another person. Whoever may approve
// one may reject his own as well. done counts them.
func (s *Service) Reject(ctx context.Context, caller joinery.Caller, devices []joinery.DeviceID) (done int, err error) {
	err = s.waiting(ctx, caller, devices, func(state joinery.ActivationState, o joinery.RekeyOrder) error {
		entry := s.orderEntry(caller, joinery.AuditRekeyRejected, state.Device, o)
		if err := s.store.EndRekey(ctx, o.ID, o.Owner, joinery.RekeyRejected, entry); err != nil {
			return err
		}
		done++
		return nil
	})
	return done, err
}

// waiting calls do with each of devices and its order that waits for another person.
func (s *Service) waiting(ctx context.Context, caller joinery.Caller, devices []joinery.DeviceID, do func(joinery.ActivationState, joinery.RekeyOrder) error) error {
	if len(devices) > MaxBatch {
		return tooMany()
	}
	for _, id := range devices {
		state, err := s.device(ctx, caller, id)
		if err != nil {
			return err
		}
		orders, err := s.store.RekeyOrders(ctx, id)
		if err != nil {
			return err
		}
		if len(orders) == 0 || orders[0].StateAt(s.now()) != joinery.RekeyRequested {
			return joinery.Errorf(joinery.CodeConflict, "no order to rekey device %s waits for approval", state.Device.DevEUI)
		}
		if err := do(state, orders[0]); err != nil {
			return err
		}
	}
	return nil
}
