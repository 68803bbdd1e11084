// Package interop is the door to Network Servers and Application Servers:
// LoRaWAN Backend Interfaces (TS002) over HTTPS with client certificates,
// answered synchronously.
//
// It knows three things and no rule: which peer a client certificate belongs to
// and which names that peer may use, how a message is read and written, and by
// which result code each kind of failure is told in each version of the
// protocol.
//
// The peer is looked up in every handshake, resumed ones included, and again
// for every request: whoever is removed or changed while connections live meets
// the change with the next request. Nothing that a proxy could add to a request
// is looked at; a proxy that ends TLS in front of this door cannot work.
//
// Asynchronous answers and bearer tokens are not served.
package interop
