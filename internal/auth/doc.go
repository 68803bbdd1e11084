// Package auth tells who calls the management API: it turns an API key, a session
// of somebody who signed in, or the user at the other end of the operator socket,
// into a joinery.Caller with their rights. It makes, lists and revokes API keys,
// says who belongs to an organisation, and signs people in: by an OpenID provider
// or by passkey, in a browser, and through a browser for a program.
//
// Every secret that it gives out is 256 random bits in a text that secret scanners
// and people can recognise. The text is shown once; what is stored is the SHA-256
// of the secret half, which needs no salt and no slow hash because the secret is
// not chosen by a person.
package auth
