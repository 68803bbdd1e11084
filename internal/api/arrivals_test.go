package api_test

import (
	"bytes"
	"testing"

	"joinery"
	"joinery/client"
)

// What was handed over is rejected by whom it is for, once, and a pinned Join Server
// keeps its id through another name.
func TestArrivals(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	ctx := t.Context()
	a, b := f.as(t, f.keyA), f.as(t, f.keyB)
	id, err := joinery.ParseArrivalID(w.ids["arr"])
	if err != nil {
		t.Fatal(err)
	}
	reject := client.RejectedArrivals{Arrivals: []joinery.ArrivalID{id}}
	if _, err := b.RejectArrivals(ctx, reject); code(err) != "not_found" {
		t.Errorf("by another organisation: %v", err)
	}
	if done, err := a.RejectArrivals(ctx, reject); err != nil || done.Rejected != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	for x, err := range a.Arrivals(ctx, client.ArrivalsQuery{}) {
		if err != nil || x.State != "refused" || x.Reason != "rejected" {
			t.Errorf("%+v, %v", x, err)
		}
	}

	for j, err := range f.operator.JoinServers(ctx, client.JoinServersQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		in := client.NewJoinServer{Name: "elsewhere", TransportKey: j.TransportKey, Theirs: []client.EUIRange{euiRange(t, "EC656EFFFE000000", "EC656EFFFE0000FF")}}
		if _, err := a.ChangeJoinServer(ctx, j.ID, in); code(err) != "forbidden" {
			t.Errorf("by an owner: %v", err)
		}
		got, err := f.operator.ChangeJoinServer(ctx, j.ID, in)
		if err != nil || got.ID != j.ID || got.Name != "elsewhere" || len(got.Theirs) != 1 {
			t.Errorf("%+v, %v", got, err)
		}
		if got.SHA1 {
			t.Error("nobody opted in to SHA-1")
		}
		if st, err := a.Rekeying(ctx, w.device.ID); err != nil || st.Orders[0].Server != j.ID || st.Orders[0].To != "elsewhere" {
			t.Errorf("%+v, %v", st, err)
		}
		in.SHA1 = true
		bySHA1, err := f.operator.ChangeJoinServer(ctx, j.ID, in)
		if err != nil || !bySHA1.SHA1 || bytes.Equal(bySHA1.TransportKey, j.TransportKey) {
			t.Errorf("opted in to SHA-1: %+v, %v", bySHA1, err)
		}
		in.TransportKey, in.SHA1 = bySHA1.TransportKey, false // the key says so itself
		if got, err = f.operator.ChangeJoinServer(ctx, j.ID, in); err != nil || !got.SHA1 {
			t.Errorf("changed in something else: %+v, %v", got, err)
		}
		in.TransportKey, in.SHA1 = []byte("none"), true
		if _, err := f.operator.ChangeJoinServer(ctx, j.ID, in); code(err) != "invalid" {
			t.Errorf("no key: %v", err)
		}
	}
}
