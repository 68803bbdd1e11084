// Package backend holds the messages that a Join Server exchanges with Network
// Servers and Application Servers: LoRaWAN Backend Interfaces (LoRa Alliance
// TS002) versions 1.0 and 1.1, synchronous, as JSON.
//
// Both directions are here, because a server and its counterpart in tests must
// agree on nothing but the wire: a Join Server parses a Request and appends an
// Answer, a network or application server appends a Request and parses an
// Answer.
//
// What comes in is read strictly where ambiguity could hurt (no member twice, no
// wrong length, no number out of range) and leniently where the field is known
// to differ (upper and lower case, an 0x prefix, null for absent, members nobody
// knows). What goes out is what the strictest known client accepts: no prefix,
// no null, no escapes in hexadecimal, and only result codes that the version of
// the exchange defines.
//
// Every binary value is hexadecimal in network order, as printed; only
// PHYPayload and CFList are bytes as they travel on air.
//
// No error of this package repeats what was in a message: a peer may have put a
// key where an identifier belongs.
package backend
