// Package auth tells who calls the management API: it turns an API key, or the
// user at the other end of the operator socket, into a joinery.Caller, and it
// makes, lists and revokes API keys.
//
// An API key is 256 random bits in a text that secret scanners and people can
// recognise. The text is shown once; what is stored is the SHA-256 of the secret
// half, which needs no salt and no slow hash because the secret is not chosen by
// a person.
package auth
