// Package client is the Go client of Joinery's management API, and the one
// definition of what travels over it: the server builds its OpenAPI document
// from the types of this package.
//
// A Client speaks to the operator socket of a server on the same machine, where
// root and the server's own user need no credential, or to an HTTP address with
// an API key. Every method takes a context, does one request, and gives a
// *Problem (RFC 9457) when the server refuses it:
//
//	c, err := client.New(client.Options{Socket: "/run/joinery/joinery.sock"})
//	...
//	device, err := c.Device(ctx, id)
//	if p, ok := errors.AsType[*client.Problem](err); ok && p.Code == joinery.CodeNotFound { … }
//
// The calls are generated from that document, one for each operation: see
// calls.go. Listings of things that may be many are ranged over, page by page.
//
// No type of this package takes a key in the clear: keys are sealed to the
// server's transport key before they get here. The exceptions are answers that
// issue a credential, and say so.
package client

//go:generate go run -tags clientgen joinery/internal/api/clientgen -o calls.go
