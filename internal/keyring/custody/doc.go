// Package custody is a custodian in a process of its own, and both halves of the
// conversation with it: joinery starts joinery-hsm, which alone links a token's library
// and reads PINs, for one rotation or one approved export, and ends it afterwards.
//
// They speak lines of JSON: the first on its standard input says which tokens to open,
// each later one is a request, and every line on descriptor 3 answers one. All of it is
// ciphertext, public keys and names of devices.
package custody
