// Package seal encrypts keys to a transport key, and opens them with it: a
// server's, to which key lists and KEKs are encrypted on the customer's machine
// before they leave it, or another recipient's.
//
// One AES-256 file key is drawn for each file and encrypted by RSA-OAEP with
// SHA-256; each key of the file travels under it by AES key wrap (RFC 3394), so
// that a hardware token can open both steps without ever showing the key. The
// Header names the algorithms. Key wrap binds a key to the file, not to its row:
// whoever may change the file may swap rows, and the transport that carries it
// has to be authenticated.
package seal
