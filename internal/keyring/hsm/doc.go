// Package hsm is the keyring's backend over a hardware token: PKCS #11.
//
// Master keys, storage keys, MAC keys and the transport key are objects of the
// token, found once by their labels when it is opened. Root keys, session keys
// and the keys of an import are session objects, made for one verb and destroyed
// after it; peers' KEKs are session objects that stay. Nothing but ciphertext,
// MACs and what becomes a join-accept leaves the token, where the token can do all
// of it. Where it cannot, the levels that Token.Custody tells say so: they are
// probed with throw-away keys whenever a token is opened, and every result is
// compared with one that is computed here. No return code is believed.
//
// A crash in the token's library is a crash of the process, so that no server
// links this package: a worker does.
package hsm
