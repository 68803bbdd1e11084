// Package calls fails every call that the rules make on store and keyring, one
// at a time, and looks at the state that is left and at what callers were told.
package calls
