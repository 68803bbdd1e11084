package soft

import "errors"

// Errors of files and of unlocking them. Each comes with the path and with what
// to do, and never with what a file holds.
var (
	// ErrUnlock: it is not said, said twice, or cannot be read how a file is
	// unlocked.
	ErrUnlock = errors.New("cannot unlock")
	// ErrPermissions: a file of secrets is open to others.
	ErrPermissions = errors.New("the file is open to others")
	// ErrPassphrase: the passphrase or identity is not the one of this file.
	ErrPassphrase = errors.New("wrong passphrase or identity")
	// ErrDamaged: the file is no key file, or was changed or cut short.
	ErrDamaged = errors.New("the file is damaged")
	// ErrFormat: the file holds something else, or is of another version.
	ErrFormat = errors.New("the file has another format")
	// ErrExists: a file is there already; nothing is ever overwritten.
	ErrExists = errors.New("the file exists already")
	// ErrMasterExists: another master key has that name.
	ErrMasterExists = errors.New("there is another master key of that name")
	// ErrMasterName: a name of a master key is not 1 to 64 letters, digits,
	// hyphens, dots and underscores.
	ErrMasterName = errors.New("a master key's name is 1 to 64 letters, digits, hyphens, dots and underscores")
	// ErrShare: what should hold a shared master key does not.
	ErrShare = errors.New("not a shared master key for this server")
)
