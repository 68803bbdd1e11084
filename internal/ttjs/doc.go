// Package ttjs is the door that speaks the API of The Things Join Server,
// version 2, so that its clients work with this server unmodified: the Device
// Claiming Server of The Things Stack claims devices here, and tools of makers
// import and list them. Its paths lie under /api/v2 of the management API.
//
// Claims are made by Application Servers. Who asks is told by the client
// certificate of the TLS connection, which must lead to exactly one peer with an
// AS-ID, looked up for every request. The other paths are for holders of API
// keys, as all of the management API.
//
// This door has manners of its own: what clients were seen to send is what it
// takes, the order of its checks is the one they know, and an error is {"message":
// …} whose text one client compares letter by letter. It departs from the original
// where that gave keys away; see docs/connect/the-things-stack.md.
//
// # The one key that a door touches
//
// A claim may bring a KEK, and clients send it readable. It is decoded into memory
// of the package secret, sealed there to the server's own transport key, and
// wiped, before any rule sees the claim. The text of the request is cleared.
package ttjs
