// Package soft is the keyring's software backend: keys sealed in a file at rest,
// in this process's memory while it runs.
//
// A key file is an age file (filippo.io/age) under a passphrase or an age
// identity. Open puts what it holds into memory that core dumps and swap leave
// out (package secret); root and session keys are ordinary memory for the length
// of one verb and are then cleared. The private half of the custody key is not
// in the key file: Init writes it to a file of its own, under its own
// passphrase, to be kept apart.
//
// Whoever holds the process can use its keys, and read them. A hardware token
// behind the same interfaces takes the second away.
package soft
