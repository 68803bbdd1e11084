package api_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/api"
)

func TestOwnerTokens(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	ctx := t.Context()
	maker := f.as(t, f.keyA)
	alone, err := maker.OwnerToken(ctx, w.device.ID)
	if err != nil {
		t.Fatal(err)
	}
	refs := []client.DeviceRef{
		{Device: w.device.ID}, {Device: joinery.NewDeviceID()}, {JoinEUI: w.device.JoinEUI, DevEUI: w.device.DevEUI}, {},
	}
	answer, err := maker.OwnerTokens(ctx, client.OwnerTokensRequest{Devices: refs})
	got := answer.Results
	if err != nil || len(got) != len(refs) {
		t.Fatalf("%+v, %v", got, err)
	}
	for i, r := range got {
		if r.Index != i {
			t.Errorf("result %d has index %d", i, r.Index)
		}
	}
	for _, i := range []int{0, 2} {
		r := got[i]
		if r.OwnerToken != alone.OwnerToken || r.Device != w.device.ID || r.DevEUI != w.device.DevEUI || r.JoinEUI != w.device.JoinEUI || r.Code != "" {
			t.Errorf("%d: %+v", i, r)
		}
	}
	if got[1].Code != joinery.CodeNotFound || got[1].Detail != "no such device" || got[3].Code != joinery.CodeInvalid || got[1].OwnerToken+got[3].OwnerToken != "" {
		t.Errorf("%+v", got)
	}
	if strings.Contains(f.log.String(), alone.OwnerToken) {
		t.Error("the log holds a token")
	}

	// Another organisation's devices are as absent ones.
	others, err := f.as(t, f.keyB).OwnerTokens(ctx, client.OwnerTokensRequest{Devices: refs[:3]})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range others.Results {
		if r != (client.LabelToken{Index: i, Code: joinery.CodeNotFound, Detail: "no such device"}) {
			t.Errorf("%d: %+v", i, r)
		}
	}
	_, err = maker.OwnerTokens(ctx, client.OwnerTokensRequest{Devices: make([]client.DeviceRef, client.MaxLabels+1)})
	if code(err) != string(joinery.CodeInvalid) {
		t.Errorf("one too many: %v", err)
	}
	if a := f.send(t, f.keyA, http.MethodPost, "/api/v1/owner-tokens", `{"devices":[]}`); a.status != http.StatusUnprocessableEntity {
		t.Errorf("none: %d %s", a.status, a.body)
	}
	// As many as go, in one request.
	many := make([]client.DeviceRef, client.MaxLabels)
	for i := range many {
		many[i] = client.DeviceRef{Device: w.device.ID, JoinEUI: w.device.JoinEUI, DevEUI: w.device.DevEUI}
	}
	answer, err = maker.OwnerTokens(ctx, client.OwnerTokensRequest{Devices: many})
	if got = answer.Results; err != nil || len(got) != len(many) || got[len(got)-1].OwnerToken != alone.OwnerToken {
		t.Errorf("%d results, %v", len(got), err)
	}
}

// slowOwnership takes its time.
type slowOwnership struct{ api.Ownership }

func (s slowOwnership) LabelTokens(ctx context.Context, caller joinery.Caller, refs []joinery.DeviceRef) ([]joinery.LabelToken, error) {
	select {
	case <-time.After(6 * time.Second): // longer than the framework lets bodies be read
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return s.Ownership.LabelTokens(ctx, caller, refs)
}

// A request with a body may take long: only the reading of the body is bounded.
func TestSlowRequestIsNotCut(t *testing.T) {
	if testing.Short() {
		t.Skip("six seconds of waiting; it runs without -short")
	}
	t.Parallel()
	f := start(t, func(o *api.Options) { o.Ownership = slowOwnership{o.Ownership} })
	w := f.populate(t)
	answer, err := f.as(t, f.keyA).OwnerTokens(t.Context(), client.OwnerTokensRequest{Devices: []client.DeviceRef{{Device: w.device.ID}}})
	got := answer.Results
	if err != nil || len(got) != 1 || got[0].OwnerToken == "" {
		t.Errorf("%d results, %v", len(got), err)
	}
}
