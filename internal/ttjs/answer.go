package ttjs

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"joinery"
	"joinery/internal/claim"
)

// message is the body of every refusal.
type message struct {
	Message string `json:"message"`
}

// Messages that clients know. The first is compared letter by letter by The Things
// Stack: any other text with 403 is an internal error to its user.
const (
	messageToken          = "claim failed with given owner token"
	messageNotProvisioned = "Device not provisioned"
	messageNotClaimed     = "Device not claimed"
	messageNotClaim       = "Client not allowed to claim"
	messageNotUnclaim     = "Client not allowed to unclaim"
	messageNotStatus      = "Client not allowed to get status"
	messageDevEUI         = "DevEUI not found or is invalid"
)

// writeMessage sends a refusal.
func writeMessage(w http.ResponseWriter, status int, text string) {
	writeJSON(w, status, message{text})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that is gone hears nothing
}

// statusOf maps a code to the status that this API's clients know for it.
func statusOf(code joinery.Code) int {
	switch code {
	case joinery.CodeInvalid:
		return http.StatusBadRequest
	case joinery.CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case joinery.CodeUnauthenticated:
		return http.StatusUnauthorized
	case joinery.CodeForbidden:
		return http.StatusForbidden
	case joinery.CodeNotFound, joinery.CodeUnknownDevice:
		return http.StatusNotFound
	case joinery.CodeConflict:
		return http.StatusConflict
	case joinery.CodeRateLimited:
		return http.StatusTooManyRequests
	case joinery.CodeUnavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// textOf says an error to a client; held is what the client is told of a device
// that is another's.
func textOf(err error, held string) string {
	switch {
	case errors.Is(err, claim.ErrOwnerToken):
		return messageToken
	case errors.Is(err, claim.ErrNotProvisioned):
		return messageNotProvisioned
	case errors.Is(err, claim.ErrNotClaimed):
		return messageNotClaimed
	case errors.Is(err, claim.ErrHeldByOther):
		return held
	}
	if statusOf(joinery.CodeOf(err)) == http.StatusInternalServerError {
		return "internal error"
	}
	return joinery.MessageOf(err)
}

// refuse answers an error that is about no claim.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	s.refuseHeld(w, r, err, "")
}

// refuseHeld answers an error; see textOf.
func (s *Server) refuseHeld(w http.ResponseWriter, r *http.Request, err error, held string) {
	status := statusOf(joinery.CodeOf(err))
	s.logFailure(r, err)
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter(status, err)))
	}
	writeMessage(w, status, textOf(err, held))
}

// retryAfter is after how many seconds to try again, where the refusal itself does
// not say: while guesses count, which is a quarter of an hour at most, and else soon.
func retryAfter(status int, err error) int {
	if after := joinery.RetryAfter(err); after > 0 {
		return int((after + time.Second - 1) / time.Second)
	}
	if status == http.StatusTooManyRequests {
		return 15 * 60
	}
	return 5
}

// logFailure logs an error that is ours to mend. Whoever was refused was told.
func (s *Server) logFailure(r *http.Request, err error) {
	if code := joinery.CodeOf(err); code == joinery.CodeInternal || code == joinery.CodeUnavailable {
		s.Log.LogAttrs(r.Context(), slog.LevelError, "request failed",
			slog.String("route", r.Pattern), slog.String("code", string(code)), slog.Any("error", err))
	}
}
