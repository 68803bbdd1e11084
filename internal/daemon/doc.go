// Package daemon is the server as a value: Open connects configuration, store,
// keyring, rules and doors; Run serves until it is told to stop; Close gives
// everything back. The program and its tests build the same Program.
//
// It holds no rule. What it decides is order: a thing is opened before whoever
// uses it and closed after, and nothing listens before everything answers.
package daemon
