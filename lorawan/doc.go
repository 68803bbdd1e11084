// Package lorawan holds the identifiers, MAC versions and activation frames of
// the LoRaWAN link layer (LoRa Alliance TS001) as plain values.
//
// Every identifier is stored in big-endian order, the order in which people
// print it, and has one text form: upper-case hexadecimal without separators.
// On air the same identifiers travel least significant byte first (TS001-1.0.4
// §4 "octet order"); the frame codecs of this package turn them around, so that
// no other package ever has to.
//
// Nothing in here holds a key: frames carry MICs and ciphertext, and what
// verifies or opens them lives elsewhere.
package lorawan
