// Package seal encrypts keys to a transport key, and opens them with it: a
// server's, to which key lists and KEKs are encrypted on the customer's machine
// before they leave it, or another recipient's.
//
// One AES-256 file key is drawn for each file and encrypted by RSA-OAEP with
// SHA-256; each key of the file travels under it by AES key wrap (RFC 3394), so
// that a hardware token can open both steps without ever showing the key. The
// Header names the algorithms. A token that knows OAEP with SHA-1 only has a key
// that says so (see PublicKey), and the Header then names that.
//
// Key wrap binds a key to the file and to nothing else, so each item of a file
// (a row of a key list, a KEK, a master key, an element) has a MAC over what it is
// for, to what it belongs and its wrapped keys: AES-CMAC under a key that derives
// from the file key by one AES-ECB encryption, which a hardware token can do too.
// An item that was changed, swapped or presented for another purpose does not
// open. Nothing says who sealed: anybody can seal to a public key.
package seal
