// Package refusal keeps what was refused and says why, in the words of whoever
// asks: the owner of a device ("network 000013 tried to join your device; you
// allowed 000042 only") and the operator, by peer.
//
// Recording costs an answer one lock and one copy, the same whatever the reason
// and whether the device is here or not. Everything else happens behind: a
// goroutine counts what is alike and adds it to the store in small transactions,
// so that joins never wait long. Every step is bounded. What is over a bound is
// not kept, and that it was not is counted and said.
package refusal
