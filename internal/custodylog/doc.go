// Package custodylog is the custody log: what was done with keys, put into a
// Merkle tree whose state is signed and public, so that nobody changes it
// unnoticed, the operator least of all.
//
// A row of an activation or of the audit log is written in the transaction of its
// effect, and answered only then. Behind that one server, which leads, puts the
// rows into the tree in the order of the feed (Round), and signs a checkpoint of
// what is on disk. Owners get entries about their devices with proofs (Custody);
// tiles and checkpoints are for everybody.
package custodylog
