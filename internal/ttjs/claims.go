package ttjs

import (
	"net/http"
	"strings"

	"joinery"
	"joinery/internal/claim"
	"joinery/lorawan"
)

// maxBatch bounds the devices of one batch; a client was seen to send 20.
const maxBatch = 500

// claim binds a device to the network of an Application Server: PUT
// /devices/{devEUI}/claim. Any 2xx is a success to clients, and they read no more.
func (s *Server) claim(w http.ResponseWriter, r *http.Request, peer joinery.Peer) {
	device, err := deviceOf(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	body, err := s.readClaim(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	body.NetworkDevice = device
	if err := s.Claims.Claim(r.Context(), peer, body); err != nil {
		s.attemptedAs(r, peer, device.DevEUI, err)
		s.refuseHeld(w, r, err, messageNotClaim)
		return
	}
	w.WriteHeader(http.StatusCreated)
}

// claimState is the answer of claimStatus.
type claimState struct {
	HomeNetID string `json:"homeNetID"`
	HomeNSID  string `json:"homeNSID,omitempty"`
	Locked    bool   `json:"locked"`
}

// claimStatus tells whether, and for which network, this client has a device: GET
// /devices/{devEUI}/claim.
func (s *Server) claimStatus(w http.ResponseWriter, r *http.Request, peer joinery.Peer) {
	device, err := deviceOf(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	b, err := s.Claims.Status(r.Context(), peer, device)
	if err != nil {
		s.attemptedAs(r, peer, device.DevEUI, err)
		s.refuseHeld(w, r, err, messageNotStatus)
		return
	}
	state := claimState{HomeNetID: b.NetID.String(), Locked: b.Locked}
	if !b.NSID.IsZero() {
		state.HomeNSID = b.NSID.String()
	}
	writeJSON(w, http.StatusOK, state)
}

// unclaim lets a device go: DELETE /devices/{devEUI}/claim.
func (s *Server) unclaim(w http.ResponseWriter, r *http.Request, peer joinery.Peer) {
	device, err := deviceOf(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if err := s.Claims.Unclaim(r.Context(), peer, device); err != nil {
		s.attemptedAs(r, peer, device.DevEUI, err)
		s.refuseHeld(w, r, err, messageNotUnclaim)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// unclaimAll lets several devices go: DELETE /devices/{devEUI},{devEUI},…/claims.
// Where some fail the others are done; the answer is then 400 with a message for
// each that failed, and never one for the whole.
func (s *Server) unclaimAll(w http.ResponseWriter, r *http.Request, peer joinery.Peer) {
	texts := strings.Split(r.PathValue("devEUIs"), ",")
	if len(texts) > maxBatch {
		writeMessage(w, http.StatusBadRequest, "too many devices at once; send at most 500")
		return
	}
	devEUIs := make([]lorawan.EUI64, len(texts))
	for i, text := range texts {
		devEUI, err := lorawan.ParseEUI64(text)
		if err != nil {
			writeMessage(w, http.StatusBadRequest, messageDevEUI)
			return
		}
		devEUIs[i] = devEUI
	}
	if err := s.Rates.SpendPeer(w.Header(), peer.ID, len(devEUIs)-1); err != nil { // each counts as one alone does
		s.refuse(w, r, err)
		return
	}
	failed := s.Claims.UnclaimAll(r.Context(), peer, devEUIs)
	if len(failed) == 0 {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	messages := make(map[string]message, len(failed))
	for devEUI, err := range failed {
		s.logFailure(r, err)
		s.attemptedAs(r, peer, devEUI, err)
		messages[devEUI.String()] = message{textOf(err, messageNotUnclaim)}
	}
	writeJSON(w, http.StatusBadRequest, messages)
}

// deviceOf reads which device a path means. The original knows a DevEUI only;
// ?joinEUI= tells devices with the same one apart.
func deviceOf(r *http.Request) (d claim.NetworkDevice, err error) {
	if d.DevEUI, err = lorawan.ParseEUI64(r.PathValue("devEUI")); err != nil {
		return d, joinery.WrapError(joinery.CodeInvalid, err, messageDevEUI)
	}
	if text := r.URL.Query().Get("joinEUI"); text != "" {
		joinEUI, err := lorawan.ParseEUI64(text)
		if err != nil {
			return d, joinery.WrapError(joinery.CodeInvalid, err, "joinEUI: want 16 hexadecimal digits")
		}
		d.JoinEUI = &joinEUI
	}
	return d, nil
}
