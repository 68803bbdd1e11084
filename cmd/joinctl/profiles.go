package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"joinery"
)

// profile is a named server, and as whom to speak to it. Either Server or Socket
// is set. The credential itself lies in a file of its own.
type profile struct {
	Server       string `json:"server,omitzero"`
	Socket       string `json:"socket,omitzero"`
	ServerCA     string `json:"serverCA,omitzero"`
	Organisation string `json:"organisation,omitzero"`
	APIKeyFile   string `json:"apiKeyFile,omitzero"`
	// Session is what the kept credential is, where a person signed in by a browser.
	Session joinery.SessionID `json:"session,omitzero"`
}

// where names the server for people.
func (p profile) where() string {
	if p.Server != "" {
		return p.Server
	}
	return p.Socket
}

// profiles is what the user's configuration directory says.
type profiles struct {
	Current  string             `json:"current,omitzero"`
	Profiles map[string]profile `json:"profiles"`

	dir string
}

// Names of files in the configuration directory, and how others may see them.
const (
	profilesFile = "profiles.json"
	keysDir      = "keys"
	keyFileEnd   = ".key"
	privateFile  = 0o600
	privateDir   = 0o700
)

// maxProfiles bounds what is read of the file.
const maxProfiles = 1 << 20

// errNoHome says that the user has no place for profiles, as services have none.
var errNoHome = errors.New("profiles: this user has no configuration directory (neither HOME nor XDG_CONFIG_HOME is set); use --server and --api-key-file")

// loadProfiles reads the user's profiles. A user who has none, or no place for
// them, has an empty list.
func loadProfiles() (*profiles, error) {
	p := &profiles{Profiles: map[string]profile{}}
	base, err := os.UserConfigDir()
	if err != nil {
		return p, nil //nolint:nilerr // save tells who needs the place
	}
	p.dir = filepath.Join(base, "joinctl")
	f, err := os.Open(filepath.Join(p.dir, profilesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("profiles: %w", err)
	}
	defer func() { _ = f.Close() }()
	in := json.NewDecoder(io.LimitReader(f, maxProfiles))
	in.DisallowUnknownFields()
	if err := in.Decode(p); err != nil {
		return nil, fmt.Errorf("profiles in %s: %w; mend the file or remove it", f.Name(), err)
	}
	for name := range p.Profiles {
		if err := checkProfileName(name); err != nil {
			return nil, fmt.Errorf("profiles in %s: %w", f.Name(), err)
		}
	}
	return p, nil
}

// profileName is what a profile may be called; it is a part of a file's name.
var profileName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func checkProfileName(name string) error {
	if !profileName.MatchString(name) {
		return usagef("profile: want a name of at most 64 letters, digits, dots, hyphens and underscores that begins with a letter or digit")
	}
	return nil
}

// get finds a profile.
func (p *profiles) get(name string) (profile, error) {
	if err := checkProfileName(name); err != nil {
		return profile{}, err
	}
	found, ok := p.Profiles[name]
	if !ok {
		return profile{}, usagef("there is no profile %q; 'joinctl profile list' lists them, 'joinctl login --profile %s' makes it", name, name)
	}
	return found, nil
}

// keyFile is where the credential of a profile is kept.
func (p *profiles) keyFile(name string) string {
	return filepath.Join(p.dir, keysDir, name+keyFileEnd)
}

// save writes the profiles.
func (p *profiles) save() error {
	if p.dir == "" {
		return errNoHome
	}
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	return writePrivate(filepath.Join(p.dir, profilesFile), append(text, '\n'))
}

// saveKey keeps a credential.
func (p *profiles) saveKey(name, text string) error {
	if p.dir == "" {
		return errNoHome
	}
	return writePrivate(p.keyFile(name), []byte(text+"\n"))
}

// forgetKey removes the credential that is kept for a profile, and tells whether
// there was one. A file that the user keeps elsewhere is left alone.
func (p *profiles) forgetKey(name string) (bool, error) {
	if p.dir == "" {
		return false, nil
	}
	err := os.Remove(p.keyFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// writePrivate writes a file that only its user can read. It is there whole, or
// as it was before.
func writePrivate(path string, text []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), privateDir); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(text)
	if err == nil {
		err = tmp.Chmod(privateFile)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
