package main

import (
	"context"

	"joinery/internal/keyring"
	"joinery/internal/keyring/hsm"
)

// Options say which token to open.
type Options struct {
	Module   string // path of the PKCS #11 library
	InitArgs string // what that wants to be told when it starts
	Token    string // the token's label
	PIN      []byte // the user's; the caller clears it
	Sessions int    // 0 is what fits how fast the token answers
}

// openToken opens a token. A PIN that it refuses is an error that wraps
// keyring.ErrPIN.
func openToken(ctx context.Context, o Options) (keyring.Token, error) {
	token, err := hsm.Open(ctx, hsm.Options{Module: o.Module, InitArgs: o.InitArgs, Token: o.Token, PIN: o.PIN, Sessions: o.Sessions})
	if err != nil {
		return nil, err // an interface that holds nil is not nil
	}
	return token, nil
}
