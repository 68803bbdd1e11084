package backup

import (
	"fmt"
	"io/fs"
	"os"
	"strings"

	"filippo.io/age"
)

// Recipients are who can open a backup.
type Recipients []age.Recipient

// Identities open backups.
type Identities []age.Identity

// ParseRecipients reads age recipients (age1…): from texts, and from files that have
// one a line, with comments behind #.
func ParseRecipients(texts, files []string) (list Recipients, err error) {
	for i, text := range texts {
		r, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil { // which may be a secret that was taken for a recipient
			return nil, fmt.Errorf("recipient %d is no age recipient; want age1…, as age-keygen -y prints it", i+1)
		}
		list = append(list, r...)
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		r, err := age.ParseRecipients(f)
		_ = f.Close() // read only
		if err != nil {
			return nil, fmt.Errorf("%s: want age recipients (age1…), one a line: %w", file, err)
		}
		list = append(list, r...)
	}
	return list, nil
}

// ReadIdentities reads the age identities of a file, which nobody but its owner may
// read. No error of it shows what the file holds.
func ReadIdentities(file string) (Identities, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	const others fs.FileMode = 0o077
	if info.Mode().Perm()&others != 0 {
		return nil, fmt.Errorf("%s: others may read it (mode %04o); run: chmod 600 %s", file, info.Mode().Perm(), file)
	}
	list, err := age.ParseIdentities(f)
	if err != nil {
		return nil, fmt.Errorf("%s: it holds no age identity; want AGE-SECRET-KEY-…, as age-keygen makes it", file)
	}
	return list, nil
}

// RecipientOf gives the public part of the identity in a file, for -r and for
// lists of recipients.
func RecipientOf(file string) (string, error) {
	identities, err := ReadIdentities(file)
	if err != nil {
		return "", err
	}
	switch i := identities[0].(type) {
	case *age.X25519Identity:
		return i.Recipient().String(), nil
	case *age.HybridIdentity:
		return i.Recipient().String(), nil
	}
	return "", fmt.Errorf("%s: no recipient can be told from it", file)
}
