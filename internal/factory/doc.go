// Package factory makes elements, offline: from a master key and a range of
// DevEUIs it writes the signed manifest that the device maker imports, and the
// silicon file with each element's root keys, sealed to whoever puts them into
// silicon. Both are written element by element, so that a run of a million needs
// no more memory than a run of ten.
//
// It sees ciphertext only: keys are derived, sealed and used for signing in the
// keyring.
package factory
