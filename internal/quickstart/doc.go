// Package quickstart makes a complete Join Server in one directory, for whoever
// wants to look around, for the demonstration and for tests: configuration, key
// files, database, a small PKI, two Network Servers and an Application Server
// that the server knows, and ten elements that a factory has made and nobody has
// imported yet. Everything goes through the doors that people use: peers,
// ranges and the signer are registered over the management API of a running
// server.
//
// What it makes is sound but for one thing: all keys of all parties lie in one
// directory. It is no way to start a server that others rely on.
package quickstart
