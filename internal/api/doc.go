// Package api is the door of the management API: HTTP with an OpenAPI 3.1
// document that comes from this code, under /api/v1, on a Unix socket for the
// server's operator and on loopback TCP for holders of API keys.
//
// The door decodes strictly, finds out who calls, asks a service of the rules,
// and says in HTTP what came of it. It holds no rule, sees neither store nor
// keyring, and takes keys as ciphertext only. What it answers to a wrong request
// never repeats what was sent: a key may have been put where a name belongs.
package api
