package fault

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"

	"joinery"
	"joinery/client"
)

// leaver is an owner who has root keys leave: he asks for exports and takes them back,
// orders devices to rekey and cancels that, and knows what he was told of it.
type leaver struct {
	f       *fleet
	api     *client.Client
	to      joinery.RecipientID
	there   joinery.JoinServerID
	element joinery.DeviceID

	// What he was told of since the last kill, and whether also that it is withdrawn or
	// cancelled.
	exports map[joinery.ExportID]bool
	orders  map[joinery.RekeyID]bool
	before  struct{ exports, orders int } // how many that were before
}

// newLeaver makes the owner of the elements of a fleet.
func newLeaver(f *fleet) *leaver {
	t := f.t
	t.Helper()
	l := &leaver{f: f, exports: map[joinery.ExportID]bool{}, orders: map[joinery.RekeyID]bool{}}
	_, err := f.api.Claim(t.Context(), f.unclaimed[0])
	ok(t, err)
	f.claimed, f.unclaimed = append(f.claimed, f.unclaimed[0]), f.unclaimed[1:]
	first, err := f.api.Device(t.Context(), f.ids[f.claimed[0].DevEUI])
	ok(t, err)
	l.api, err = client.New(client.Options{Socket: f.server.Path("joinery.sock"), Organisation: first.Owner})
	ok(t, err)
	t.Cleanup(l.api.Close)
	public, err := recipients()
	ok(t, err)
	der, err := x509.MarshalPKIXPublicKey(public[0])
	ok(t, err)
	r, err := l.api.AddRecipient(t.Context(), client.NewRecipient{Name: "safe", Key: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))})
	ok(t, err)
	j, err := f.api.PinJoinServer(t.Context(), client.NewJoinServer{Name: "there", TransportKey: der})
	ok(t, err)
	l.to, l.there, l.element = r.ID, j.ID, first.ID
	return l
}

// leave does it again and again, until the server is dead.
func (l *leaver) leave(ctx context.Context) {
	for ctx.Err() == nil {
		e, err := l.api.RequestExport(ctx, client.NewExport{Recipient: l.to, Devices: []client.DeviceRef{{Device: l.element}}})
		if err != nil {
			return
		}
		l.exports[e.ID] = false
		if _, err := l.api.WithdrawExport(ctx, e.ID); err != nil {
			return
		}
		l.exports[e.ID] = true

		o, err := l.api.ArmRekey(ctx, l.element, client.NewRekeyOrder{NewJoinEUI: away, To: l.there})
		var refused *client.Problem
		switch {
		case err == nil:
			l.orders[o.ID] = false
		case errors.As(err, &refused) && refused.Code == joinery.CodeConflict:
			// An earlier order stands, though its answer was lost.
		default:
			return
		}
		if l.api.CancelRekey(ctx, l.element) != nil {
			return
		}
		if err == nil {
			l.orders[o.ID] = true
		}
	}
}

// check looks for what he was told of since the last kill: a list of orders has an end.
func (l *leaver) check() {
	t := l.f.t
	t.Helper()
	for id, withdrawn := range l.exports {
		e, err := l.api.Export(t.Context(), id)
		ok(t, err)
		if withdrawn && e.State != "withdrawn" {
			t.Errorf("export %s is %s, and was told to be withdrawn", id, e.State)
		}
	}
	st, err := l.api.Rekeying(t.Context(), l.element)
	ok(t, err)
	for id, cancelled := range l.orders {
		n := slices.IndexFunc(st.Orders, func(have client.RekeyOrder) bool { return have.ID == id })
		if n < 0 || cancelled && st.Orders[n].State != "cancelled" {
			t.Errorf("order %s, cancelled %t, is not among %d orders, or not so", id, cancelled, len(st.Orders))
		}
	}
	l.before.exports, l.before.orders = l.before.exports+len(l.exports), l.before.orders+len(l.orders)
	clear(l.exports)
	clear(l.orders)
}
