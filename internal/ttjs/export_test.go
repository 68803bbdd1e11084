package ttjs

import (
	"net/http"

	"joinery/internal/claim"
)

// ReadClaim reads the body of a claim.
func (s *Server) ReadClaim(r *http.Request) (claim.NetworkClaim, error) { return s.readClaim(r) }

// ParseClaim reads the text of one.
func (s *Server) ParseClaim(text []byte) (claim.NetworkClaim, error) { return s.parseClaim(text) }

// HeldKeys is how many keys are in the door's memory.
func (s *Server) HeldKeys() int { return s.memory.Len() }
