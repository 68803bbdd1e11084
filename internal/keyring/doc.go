// Package keyring is custody: LoRaWAN operations on keys that nobody can fetch.
//
// A Keyring offers verbs (verify this join-request, make its answer, wrap this
// session's AppSKey for that Application Server, check this owner token) over a
// backend that holds the keys. Sealed material comes in as ciphertext, answers
// go out as ciphertext, and no method returns a root key. docs/custody.md tells
// what protects what, and what does not.
package keyring
