package api

import (
	"context"
	"reflect"
	"strconv"
	"strings"
	"time"

	"joinery"
	"joinery/client"
	"joinery/lorawan"

	"github.com/danielgtaylor/huma/v2"
)

type devicesInput struct {
	Paging
	JoinEUI      string         `query:"joinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"Only devices with this JoinEUI"`
	DevEUI       string         `query:"devEUI" pattern:"^[0-9A-Fa-f]{1,16}$" patternDescription:"1 to 16 hexadecimal digits" doc:"Only devices whose DevEUI begins so"`
	Owner        string         `query:"owner" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Only devices of this organisation; for the operator, who sees others'"`
	NetID        string         `query:"netID" pattern:"^[0-9A-Fa-f]{6}$" patternDescription:"6 hexadecimal digits" doc:"Only devices bound to this network"`
	NSID         string         `query:"nsid" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"Only devices bound to this Network Server of their network"`
	Status       string         `query:"status" enum:"active,unbound,suspended" doc:"Only devices that stand so: active is bound to a network and not suspended, unbound is neither"`
	Claimed      optional[bool] `query:"claimed" doc:"Only devices that somebody claimed with an owner token, or that nobody did"`
	Disclosed    optional[bool] `query:"disclosed" doc:"Only devices of which a root key was ever disclosed (exposed), or of which none was"`
	Attestation  string         `query:"attestation" enum:"L0,L1,L2,L3" doc:"Only devices that stand at this level now: L0 are those that have shown nothing, or whose results have ended"`
	JoinedBefore time.Time      `query:"joinedBefore" format:"date-time" doc:"Only devices that joined, and last before this time"`
	JoinedAfter  time.Time      `query:"joinedAfter" format:"date-time" doc:"Only devices that joined after this time"`
	NeverJoined  bool           `query:"neverJoined" default:"false" doc:"Only devices that never joined"`
	Sort         string         `query:"sort" enum:"devEUI,-devEUI,lastJoin,-lastJoin" default:"devEUI" doc:"The order; with a minus downwards. By last join, devices that never joined are left out, and the place of a device follows its joins within some minutes"`
}

// optional is a parameter of which it matters whether it was given.
type optional[T any] struct {
	value *T
	given T
}

// Receiver implements huma.ParamWrapper.
func (o *optional[T]) Receiver() reflect.Value { return reflect.ValueOf(&o.given).Elem() }

// OnParamSet implements huma.ParamReactor.
func (o *optional[T]) OnParamSet(set bool, _ any) {
	if set {
		o.value = &o.given
	}
}

// Schema implements huma.SchemaProvider.
func (o optional[T]) Schema(r huma.Registry) *huma.Schema {
	return huma.SchemaFromType(r, reflect.TypeFor[T]())
}

func (s *Server) listDevices(ctx context.Context, caller joinery.Caller, in *devicesInput) (*body[client.Page[client.Device]], error) {
	q, err := in.query(caller)
	if err != nil {
		return nil, err
	}
	page, err := s.Devices.Devices(ctx, caller, q)
	if err != nil {
		return nil, err
	}
	return ok(client.Page[client.Device]{Items: each(page.Items, device), Next: in.cursor(page.Next)}), nil
}

func (in *devicesInput) query(caller joinery.Caller) (q joinery.DeviceQuery, err error) {
	order, descending := strings.CutPrefix(in.Sort, "-")
	q = joinery.DeviceQuery{
		Org: caller.Org, Limit: in.Limit, DevEUIPrefix: in.DevEUI, Status: joinery.DeviceStatus(in.Status),
		Claimed: in.Claimed.value, Disclosed: in.Disclosed.value,
		JoinedBefore: in.JoinedBefore, JoinedAfter: in.JoinedAfter, NeverJoined: in.NeverJoined, Descending: descending,
	}
	if order == "lastJoin" {
		q.Sort = joinery.ByLastJoin
	}
	// The schema has looked at these already.
	if in.JoinEUI != "" {
		q.JoinEUI, err = lorawan.ParseEUI64(in.JoinEUI)
	}
	if in.NSID != "" && err == nil {
		q.NSID, err = lorawan.ParseEUI64(in.NSID)
	}
	if in.NetID != "" && err == nil {
		var id lorawan.NetID
		id, err = lorawan.ParseNetID(in.NetID)
		q.NetID = &id
	}
	if err != nil {
		return q, joinery.WrapError(joinery.CodeInvalid, err, "joinEUI and nsid are 16 hexadecimal digits, netID is 6")
	}
	if in.Attestation != "" {
		q.Attested, q.AttestedAt = new(joinery.AttestLevel), time.Now()
		if err := q.Attested.UnmarshalText([]byte(in.Attestation)); err != nil {
			return q, joinery.Errorf(joinery.CodeInvalid, "attestation: want L0, L1, L2 or L3")
		}
	}
	if in.Owner != "" {
		if q.Org, err = listedOwner(caller, in.Owner); err != nil {
			return q, err
		}
	}
	q.After, err = in.devicePlace()
	return q, err
}

// listedOwner reads an owner that a listing is to keep to. Others' are absent, and so
// is every one but that for which the operator acts, if it does for one.
func listedOwner(caller joinery.Caller, text string) (joinery.OrgID, error) {
	id, err := parse[joinery.OrgID](text, "organisation")
	if err == nil && id != caller.Org && (!caller.Operator || caller.Org != 0) {
		err = joinery.Errorf(joinery.CodeNotFound, "no such organisation")
	}
	return id, err
}

// A cursor of devices names its order, so that it is good for that one only.

func (in *devicesInput) cursor(p joinery.DevicePlace) string {
	switch {
	case p.Device == 0:
		return ""
	case strings.HasSuffix(in.Sort, "lastJoin"):
		return cursor("devices", in.Sort, strconv.FormatInt(p.At.UnixMilli(), 10), p.Device.String())
	}
	return cursor("devices", in.Sort, p.DevEUI.String(), p.JoinEUI.String(), p.Device.String())
}

func (in *devicesInput) devicePlace() (p joinery.DevicePlace, err error) {
	byJoin := strings.HasSuffix(in.Sort, "lastJoin")
	n := 4
	if byJoin {
		n = 3
	}
	place, err := in.place("devices", n)
	if err != nil || place == nil {
		return p, err
	}
	if place[0] != in.Sort || p.Device.UnmarshalText([]byte(place[n-1])) != nil {
		return p, errCursor
	}
	if byJoin {
		ms, err := strconv.ParseInt(place[1], 10, 64)
		if err != nil {
			return p, errCursor
		}
		p.At = time.UnixMilli(ms)
		return p, nil
	}
	if p.DevEUI, err = lorawan.ParseEUI64(place[1]); err == nil {
		p.JoinEUI, err = lorawan.ParseEUI64(place[2])
	}
	if err != nil {
		return p, errCursor
	}
	return p, nil
}
