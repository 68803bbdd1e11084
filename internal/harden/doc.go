// Package harden keeps the memory of a process that holds keys to itself: out of
// core dumps, away from debuggers, and out of swap where that is allowed.
package harden
