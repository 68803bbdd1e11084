package api

import (
	"context"
	"errors"
	"io"
	"net/http"

	"joinery"
	"joinery/client"
)

// Unsealer opens the keys of a server that starts sealed. text is a passphrase or
// age identities, which are cleared when it returns.
type Unsealer interface {
	Unseal(ctx context.Context, text []byte) error
}

// registerUnseal adds the route by which an operator opens the keys. It is no
// operation of the document: it is the operator socket's alone, and its body, which
// is a secret, goes through nothing that decodes, keeps or repeats bodies.
func (s *Server) registerUnseal() {
	s.made.mux.HandleFunc("POST "+full(client.UnsealPath), func(w http.ResponseWriter, r *http.Request) {
		if err := s.unseal(r); err != nil {
			s.logFailure(r.Context(), "unseal", err)
			s.write(w, s.problemOf(err, requestID(r.Context())))
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

func (s *Server) unseal(r *http.Request) error {
	caller, known := LocalCaller(r)
	if !known || !caller.Socket || !caller.Operator || len(r.Header.Values("Authorization")) > 0 {
		return joinery.Errorf(joinery.CodeForbidden, "keys are opened on the operator socket alone, by root or the server's own user, without an API key")
	}
	text := make([]byte, client.MaxUnseal+1)
	defer clear(text)
	n, err := io.ReadFull(r.Body, text)
	switch {
	case err == nil:
		return joinery.Errorf(joinery.CodeTooLarge, "want at most %d bytes: a passphrase, or age identities", client.MaxUnseal)
	case n == 0:
		return joinery.Errorf(joinery.CodeInvalid, "want a passphrase, or age identities")
	case !errors.Is(err, io.ErrUnexpectedEOF):
		return joinery.WrapError(joinery.CodeUnavailable, err, "the request broke off")
	}
	if err := s.Unsealer.Unseal(r.Context(), text[:n]); err != nil {
		return err
	}
	s.log.InfoContext(r.Context(), "the keys were opened", "by", caller.Name)
	return nil
}
