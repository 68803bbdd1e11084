package soft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"filippo.io/age"
)

// credentialsDirectory is where systemd puts the credentials of a service.
const credentialsDirectory = "CREDENTIALS_DIRECTORY"

// minPassphrase is the length of the shortest passphrase that a new file is
// sealed with, in bytes.
const minPassphrase = 12

// Bounds of the work factor of scrypt, a power of two: 18 takes about a second
// and 256 MiB. Above 20 (1 GiB) a file is not opened.
const (
	defaultWorkFactor = 18
	maxWorkFactor     = 20
)

// Unlock says how a key file is sealed: exactly one of the four. There is no
// default.
type Unlock struct {
	// PassphraseFile holds a passphrase; a line end at its end does not count.
	PassphraseFile string
	// IdentityFile holds age identities (AGE-SECRET-KEY-1…), one a line.
	IdentityFile string
	// Credential is the name of a systemd credential, a file of that name in
	// $CREDENTIALS_DIRECTORY: a passphrase or age identities.
	Credential string
	// Command is the path of a program that writes a passphrase or age identities
	// to its standard output: a script around the command line of a key management
	// service. See runCommand.
	Command string

	// workFactor is that of scrypt for files that are written; 0 is the default.
	// Tests lower it.
	workFactor int
}

// String names what unlocks.
func (u Unlock) String() string {
	if u.Credential != "" {
		return "the credential " + u.Credential
	}
	return u.PassphraseFile + u.IdentityFile + u.Command
}

// lock is how a file is opened and sealed.
type lock struct {
	identities []age.Identity
	recipients []age.Recipient
	source     string // what to name in errors
	passphrase bool
	short      bool // the passphrase is too short for a new file
}

// read reads the passphrase or identities.
func (u Unlock) read(ctx context.Context) (*lock, error) {
	n := 0
	for _, s := range []string{u.PassphraseFile, u.IdentityFile, u.Credential, u.Command} {
		if s != "" {
			n++
		}
	}
	if n != 1 {
		return nil, fmt.Errorf("%w: name one of passphrase file, identity file, credential and command, not %d", ErrUnlock, n)
	}
	switch {
	case u.PassphraseFile != "":
		text, err := readSecretFile(u.PassphraseFile, othersMask)
		if err != nil {
			return nil, fmt.Errorf("passphrase file: %w", err)
		}
		defer clear(text)
		return u.passphraseLock(u.PassphraseFile, text)
	case u.IdentityFile != "":
		text, err := readSecretFile(u.IdentityFile, othersMask)
		if err != nil {
			return nil, fmt.Errorf("identity file: %w", err)
		}
		defer clear(text)
		return identityLock(u.IdentityFile, text)
	case u.Command != "":
		text, err := runCommand(ctx, u.Command)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrUnlock, u.Command, err)
		}
		defer clear(text)
		return u.textLock(u.Command, text)
	default:
		return u.readCredential()
	}
}

// textLock takes a text for what it is: age identities, or else a passphrase.
func (u Unlock) textLock(source string, text []byte) (*lock, error) {
	if bytes.Contains(text, []byte("AGE-SECRET-KEY-")) {
		return identityLock(source, text)
	}
	return u.passphraseLock(source, text)
}

func (u Unlock) readCredential() (*lock, error) {
	dir := os.Getenv(credentialsDirectory)
	if dir == "" {
		return nil, fmt.Errorf("%w: credential %q: $%s is not set; start the server by systemd with LoadCredential=, or name a file",
			ErrUnlock, u.Credential, credentialsDirectory)
	}
	if filepath.Base(u.Credential) != u.Credential || u.Credential == "." || u.Credential == ".." {
		return nil, fmt.Errorf("%w: a credential is named without a path", ErrUnlock)
	}
	path := filepath.Join(dir, u.Credential)
	// systemd lets a service's user in by an access control list, which shows as
	// permissions of the group.
	text, err := readSecretFile(path, worldMask)
	if err != nil {
		return nil, fmt.Errorf("credential: %w", err)
	}
	defer clear(text)
	return u.textLock(path, text)
}

func (u Unlock) passphraseLock(source string, text []byte) (*lock, error) {
	passphrase := string(bytes.TrimRight(text, "\r\n"))
	identity, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is empty; write a passphrase into it", ErrUnlock, source)
	}
	identity.SetMaxWorkFactor(maxWorkFactor)
	recipient, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is empty; write a passphrase into it", ErrUnlock, source)
	}
	recipient.SetWorkFactor(workFactorFor(passphrase))
	if u.workFactor != 0 {
		recipient.SetWorkFactor(u.workFactor)
	}
	return &lock{
		identities: []age.Identity{identity}, recipients: []age.Recipient{recipient},
		source: source, passphrase: true, short: len(passphrase) < minPassphrase,
	}, nil
}

func identityLock(source string, text []byte) (*lock, error) {
	identities, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		// The cause is not repeated: it might name what it read.
		return nil, fmt.Errorf("%w: %s holds no age identity; make one with age-keygen", ErrUnlock, source)
	}
	l := &lock{identities: identities, source: source}
	for _, i := range identities {
		switch i := i.(type) {
		case *age.X25519Identity:
			l.recipients = append(l.recipients, i.Recipient())
		case *age.HybridIdentity:
			l.recipients = append(l.recipients, i.Recipient())
		default:
			return nil, fmt.Errorf("%w: %s holds an age identity of a kind that we cannot seal to", ErrUnlock, source)
		}
	}
	return l, nil
}

// forNewFile refuses what a new file should not be sealed with.
func (l *lock) forNewFile() error {
	if l.short {
		return fmt.Errorf("%w: the passphrase in %s is shorter than %d characters; choose a longer one", ErrUnlock, l.source, minPassphrase)
	}
	return nil
}

// explain gives an age error its name, without its text: it might repeat what
// the file holds.
func (l *lock) explain(err error) error {
	noMatch, ok := errors.AsType[*age.NoIdentityMatchError](err)
	switch {
	case !ok:
		return fmt.Errorf("%w; restore it from a backup", ErrDamaged)
	case l.passphrase != (len(noMatch.StanzaTypes) == 1 && noMatch.StanzaTypes[0] == "scrypt"):
		return fmt.Errorf("%w: the file is sealed another way than with %s: a passphrase and an identity are two things", ErrPassphrase, l.source)
	default:
		return fmt.Errorf("%w: %s does not open it", ErrPassphrase, l.source)
	}
}
