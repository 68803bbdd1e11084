// Package keyringtest is the contract of a keyring's backend as a suite of
// tests: every backend passes Run. It is linked by tests only.
//
// Expected values come from outside of the code under test: the vectors in
// testdata/vectors, and a reference device whose blocks are written out by hand
// over crypto/aes and another implementation of CMAC.
package keyringtest
