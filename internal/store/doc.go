// Package store is the state of a Join Server in one SQLite file.
//
// One process holds the database (a lock beside the file, and an epoch in it),
// one goroutine writes, a few connections read. Everything that is written is
// written in a transaction with the audit rows that belong to it, and a call
// that changes something returns nil only after its transaction is on disk:
// write-ahead log, synchronous=FULL.
//
// # A join
//
// LoadActivation is one statement. CommitActivation is two row writes: the
// nonces in the key set's row, by compare-and-swap on its version, and one
// activation row. Joins that wait share a transaction (see commit.go):
//
//  1. The committer takes what waits, at most one commit of each key set,
//     ordered by key set. Crash: nothing was written, nobody was answered.
//  2. BEGIN; for each: swap, then insert. A swap that finds another version is
//     ErrSwapLost and writes nothing; the others go on. Crash: nothing is kept.
//  3. COMMIT, one fsync. Crash during it: all of the batch or none of it.
//  4. Callers are told. Crash before: the joins count, their devices heard
//     nothing; the repeated request finds its activation and is answered alike.
//
// A batch that fails is tried again one by one, so that one bad row harms no
// other. After a COMMIT that reports an error nobody knows what is on disk: the
// activations are looked for, and who is found was committed.
//
// # What is never forgotten
//
// Devices are deleted by marking their row: identifiers are never used again,
// and a key set's nonces outlive the device. See DeleteDevice.
//
// Queries name the rows of organisations and check that they exist; who may see
// and change what is the business of the rules above.
package store
