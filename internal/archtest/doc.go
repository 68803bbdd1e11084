// Package archtest holds the architecture as tests: which packages there are,
// on which floor each stands, who may import whom, who may touch keys, which
// modules of others we depend on and where, and what the keyring shows to the
// rest. A change of the architecture is a change of the tables here, with a line
// that says why, and is reviewed as one.
package archtest
