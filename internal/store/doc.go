// Package store is the state of a Join Server, in one SQLite file or in
// PostgreSQL.
//
// Everything that is written is written in a transaction with the audit rows
// that belong to it, and a call that changes something returns nil only after
// its transaction is on disk. Transactions other than joins come one after
// another.
//
// All statements but those of joins are written once, for conn, and run on both
// engines; see pgQuery for what PostgreSQL wants otherwise. What an engine does
// in its own way is behind the interface engine.
//
// # SQLite
//
// One process holds the database (a lock beside the file, and an epoch in it),
// one goroutine writes, a few connections read: write-ahead log,
// synchronous=FULL.
//
// # PostgreSQL
//
// Any number of servers share a database. An ordinary transaction takes a lock
// that they all know, and runs at READ COMMITTED: it finds things as SQLite's
// one writer would. Joins do not wait for it. One that commits meanwhile comes
// before it, because every change of a device advances its key set's version,
// which a join compares; so what is changed holds for each join that is loaded
// after the change was committed, and for each that was loaded before it and
// has not committed yet. A transaction that writes what it has read of nonces
// advances the version first, which holds the row (OpenReset, revive). The
// others write nothing that a join writes: suspending, deleting, claiming,
// binding. An import finds the highest JoinNonce of a DevEUI as it is when it
// looks, as with SQLite.
//
// Deleting, suspending, claiming, binding and resetting, each against a batch of
// joins that runs at the same time, so end like this: the batch locked the row
// first, and the join counts, was made under the state before, and is there for
// everybody who looks afterwards; or the change did, and the join is ErrSwapLost
// once the change is committed, and goes on where the change is rolled back.
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
