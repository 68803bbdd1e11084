package ttjs

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"joinery"
	"joinery/lorawan"
)

// Bounds of a page of devices.
const (
	defaultPage = 100
	maxPage     = 500
)

// device is a device as this API shows it. There is no member for a root key: no
// answer carries one.
type device struct {
	DevEUI    lorawan.EUI64 `json:"devEUI"`
	JoinEUI   lorawan.EUI64 `json:"joinEUI"`
	CreatedAt time.Time     `json:"createdAt"`
	// RootKeysExposed is set for ever once a root key left the server.
	RootKeysExposed bool `json:"rootKeysExposed"`
	// OwnerToken is shown to the device's maker, until the first claim by an owner.
	OwnerToken string  `json:"ownerToken,omitempty"`
	Claim      *held   `json:"claim,omitempty"`
	Nonces     *nonces `json:"nonces,omitempty"`
}

// held is who has a device.
type held struct {
	ASID string `json:"asID"`
	claimState
}

// nonces is what a device may use no more.
type nonces struct {
	NextJoinNonce uint32 `json:"nextJoinNonce"`
	// UsedDevNonces is those of a device that draws them at random, NextDevNonce
	// the lowest that one which counts may use.
	UsedDevNonces []lorawan.DevNonce `json:"usedDevNonces,omitempty"`
	NextDevNonce  uint32             `json:"nextDevNonce,omitempty"`
}

func deviceFrom(state joinery.ActivationState) device {
	d := device{
		DevEUI: state.Device.DevEUI, JoinEUI: state.Device.JoinEUI, CreatedAt: state.Device.CreatedAt.UTC(),
		RootKeysExposed: state.Device.Disclosed,
	}
	if b := state.Binding; b != nil {
		d.Claim = &held{ASID: b.ASID, claimState: claimState{HomeNetID: b.NetID.String(), Locked: b.Locked}}
		if !b.NSID.IsZero() {
			d.Claim.HomeNSID = b.NSID.String()
		}
	}
	return d
}

func noncesFrom(state joinery.ActivationState) *nonces {
	known := state.KeySet.Nonces.For(state.Device.JoinEUI)
	return &nonces{
		NextJoinNonce: uint32(state.KeySet.Nonces.JoinNonce) + 1,
		UsedDevNonces: slices.Collect(known.Used.All), NextDevNonce: known.Next,
	}
}

// listDevices lists the caller's devices, in the order of their DevEUIs: GET
// /devices. The header Link leads to the next page.
func (s *Server) listDevices(w http.ResponseWriter, r *http.Request, caller joinery.Caller) {
	q, err := queryOf(r.URL.Query(), caller)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	page, err := s.Devices.Devices(r.Context(), caller, q)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	devices := make([]device, len(page.Items))
	for i, state := range page.Items {
		devices[i] = deviceFrom(state)
	}
	if page.Next != (joinery.DevicePlace{}) {
		next := url.Values{"after": {placeText(page.Next)}, "limit": {strconv.Itoa(q.Limit)}}
		w.Header().Set("Link", "<"+Base+"/devices?"+next.Encode()+`>; rel="next"`)
	}
	writeJSON(w, http.StatusOK, devices)
}

func queryOf(values url.Values, caller joinery.Caller) (q joinery.DeviceQuery, err error) {
	q = joinery.DeviceQuery{Org: caller.Org, Limit: defaultPage}
	if text := values.Get("limit"); text != "" {
		if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 1 || q.Limit > maxPage {
			return q, joinery.Errorf(joinery.CodeInvalid, "limit: want 1 to %d", maxPage)
		}
	}
	if text := values.Get("after"); text != "" {
		if q.After, err = parsePlace(text); err != nil {
			return q, joinery.WrapError(joinery.CodeInvalid, err, "after: take the link to the next page as it is")
		}
	}
	return q, nil
}

// placeText writes a place: the device's id, DevEUI and JoinEUI, with dots between.
func placeText(p joinery.DevicePlace) string {
	return p.Device.String() + "." + p.DevEUI.String() + "." + p.JoinEUI.String()
}

func parsePlace(text string) (p joinery.DevicePlace, err error) {
	device, euis, _ := strings.Cut(text, ".")
	devEUI, joinEUI, _ := strings.Cut(euis, ".")
	if p.Device, err = joinery.ParseDeviceID(device); err != nil {
		return p, err
	}
	if p.DevEUI, err = lorawan.ParseEUI64(devEUI); err != nil {
		return p, err
	}
	p.JoinEUI, err = lorawan.ParseEUI64(joinEUI)
	return p, err
}

// getDevice shows one device: GET /devices/{devEUI}, with ?nonces=true what it may
// use no more. The owner token is there for callers with the right to read tokens,
// and that it was read is written to the audit log.
func (s *Server) getDevice(w http.ResponseWriter, r *http.Request, caller joinery.Caller) {
	query := r.URL.Query()
	if wanted(query, "rootKeys") {
		writeMessage(w, http.StatusBadRequest, "rootKeys: this server shows root keys to nobody; leave it out")
		return
	}
	state, err := s.findDevice(r, caller)
	if err != nil {
		s.attempted(r, caller, err)
		s.refuse(w, r, err)
		return
	}
	d := deviceFrom(state)
	if wanted(query, "nonces") {
		d.Nonces = noncesFrom(state)
	}
	if showsToken(caller, state.Device) {
		if d.OwnerToken, err = s.Tokens.OwnerToken(r.Context(), caller, state.Device.ID); err != nil {
			s.attempted(r, caller, err)
			s.refuse(w, r, err)
			return
		}
	}
	writeJSON(w, http.StatusOK, d)
}

// showsToken tells whether the device is shown with its owner token. That of a
// released device was in the answer to the release.
func showsToken(caller joinery.Caller, d joinery.Device) bool {
	return caller.May(joinery.RightTokensRead) && d.Maker == caller.Org && d.Ownership.Epoch == 0 && !d.Ownership.Released
}

func wanted(query url.Values, name string) bool {
	text, given := query[name]
	return given && !strings.EqualFold(text[0], "false")
}

// deleteDevice forgets a device: DELETE /devices/{devEUI}.
func (s *Server) deleteDevice(w http.ResponseWriter, r *http.Request, caller joinery.Caller) {
	state, err := s.findDevice(r, caller)
	if err == nil {
		err = s.Devices.Delete(r.Context(), caller, state.Device.ID)
	}
	if err != nil {
		s.attempted(r, caller, err)
		s.refuse(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// findDevice finds the caller's device of a path; another's is absent.
func (s *Server) findDevice(r *http.Request, caller joinery.Caller) (joinery.ActivationState, error) {
	named, err := deviceOf(r)
	if err != nil {
		return joinery.ActivationState{}, err
	}
	states, err := s.Devices.FindDevices(r.Context(), caller, named.DevEUI)
	if err != nil {
		return joinery.ActivationState{}, err
	}
	var found []joinery.ActivationState
	for _, state := range states {
		if named.JoinEUI == nil || state.Device.JoinEUI == *named.JoinEUI {
			found = append(found, state)
		}
	}
	switch len(found) {
	case 0:
		return joinery.ActivationState{}, joinery.Errorf(joinery.CodeNotFound, messageNotProvisioned)
	case 1:
		return found[0], nil
	}
	return joinery.ActivationState{}, joinery.Errorf(joinery.CodeInvalid, "several devices have this DevEUI, under different JoinEUIs: say which with ?joinEUI=")
}
