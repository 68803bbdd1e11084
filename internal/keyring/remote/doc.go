// Package remote puts a keyring into another process: the verbs of
// keyring.Keyring over a stream socket between a server and a worker that it
// started.
//
// The protocol carries LoRaWAN verbs, not operations of a token, so that whoever
// has the socket can do no more than the Join Server can. Every message is a
// frame of four bytes length (big-endian) and at most MaxFrame bytes. The two
// sides begin with a hello that names the version; they must be of the same.
// After it the client sends requests, each with a number, a verb, the time that
// is left for it and the verb's arguments, and gets one answer for each, in any
// order. A request that nobody waits for any more may be cancelled.
//
// Nothing is negotiated and nothing is optional: both halves come from one
// release. What is not a well-formed frame ends the connection.
//
// Session keys of the consented kind, owner tokens and the secrets of webhooks
// pass through here readable. Every buffer is cleared once its frame was used.
package remote
