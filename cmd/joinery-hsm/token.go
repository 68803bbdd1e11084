package main

import (
	"context"
	"errors"

	"joinery/internal/keyring"
)

// Options say which token to open.
type Options struct {
	Module   string // path of the PKCS #11 library
	InitArgs string // what that wants to be told when it starts
	Token    string // the token's label
	PIN      []byte // the user's; cleared when openToken returns
	Sessions int
}

// openToken opens a token. A PIN that it refuses is an error that wraps
// keyring.ErrPIN.
func openToken(context.Context, Options) (keyring.Token, error) {
	return nil, errors.New("this build of joinery-hsm knows no hardware tokens")
}
