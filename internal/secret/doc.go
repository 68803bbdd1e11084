// Package secret keeps keys in memory: outside of core dumps and swap where the
// platform can do that, used only inside a callback, never printed or
// marshalled, and wiped.
//
// Keys that stay (a server's storage keys, the KEKs of its peers) live in a
// Memory. Keys that exist for the length of one operation are ordinary memory
// that its owner clears; Do and WipeBlock erase what clearing cannot reach.
package secret
