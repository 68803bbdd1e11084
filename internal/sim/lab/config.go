// Package lab is where simulated peers and devices live between invocations of
// joinsim: sim.json describes them, silicon files hold the elements' sealed
// keys, devices.json remembers counters and sessions.
package lab

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json"

	"joinery/internal/sim/silicon"
	"joinery/lorawan"
)

// Config is sim.json. Paths are relative to the file. It holds the simulated
// peers' own copies of their KEKs, so nobody but its owner may read it.
type Config struct {
	// JoinServer is the URL of the Backend Interfaces, https.
	JoinServer string `json:"joinServer"`
	// ServerCA is a PEM file with the CA of the server's certificate.
	ServerCA string     `json:"serverCA"`
	NS       []NSConfig `json:"ns"`
	AS       []ASConfig `json:"as"`
	// RecipientKey is the private key to which the Silicon files are sealed. Both
	// may be missing: then only devices from a seed can be simulated.
	RecipientKey string   `json:"recipientKey"`
	Silicon      []string `json:"silicon"`
	// State is devices.json; it appears at the first join.
	State string `json:"state"`
}

// NSConfig is one simulated Network Server.
type NSConfig struct {
	Name  string        `json:"name"`
	NetID lorawan.NetID `json:"netID"`
	// NSID is an EUI-64 or empty.
	NSID string         `json:"nsid"`
	Cert string         `json:"cert"`
	Key  string         `json:"key"`
	KEKs map[string]KEK `json:"keks"`
}

// ASConfig is one simulated Application Server.
type ASConfig struct {
	Name string         `json:"name"`
	ASID string         `json:"asID"`
	Cert string         `json:"cert"`
	Key  string         `json:"key"`
	KEKs map[string]KEK `json:"keks"`
}

// KEK is a key encryption key, hexadecimal in the file. It never prints.
type KEK []byte

// UnmarshalText reads 32, 48 or 64 hexadecimal digits. The error does not
// repeat them.
func (k *KEK) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != 16 && len(b) != 24 && len(b) != 32 {
		return errors.New("a KEK is 32, 48 or 64 hexadecimal digits")
	}
	*k = b
	return nil
}

// String keeps the key out of logs.
func (KEK) String() string { return "KEK" }

// Format is String for every verb of package fmt.
func (k KEK) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(k.String())) }

// readConfig reads sim.json and makes its paths absolute.
func readConfig(file string) (*Config, error) {
	if err := silicon.CheckPrivate(file); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: no such file: name the simulator's configuration with --config (`joinery quickstart` writes one as sim/sim.json)", file)
		}
		return nil, err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	var c Config
	if err := json.Unmarshal(b, &c, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%s: %w", file, reason(err))
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return nil, err
	}
	c.resolve(dir)
	return &c, nil
}

// reason says where a JSON file is wrong, without the text that stands there.
func reason(err error) error {
	if semantic, ok := errors.AsType[*json.SemanticError](err); ok {
		if semantic.Err != nil {
			return fmt.Errorf("%s: %w", semantic.JSONPointer, semantic.Err)
		}
		return fmt.Errorf("%s: wrong kind of value", semantic.JSONPointer)
	}
	return fmt.Errorf("not valid JSON: %w", err)
}

func (c *Config) check() error {
	u, err := url.Parse(c.JoinServer)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "":
		return errors.New("joinServer: want an https URL")
	case c.ServerCA == "":
		return errors.New("serverCA is missing")
	case len(c.NS) == 0:
		return errors.New("ns: want one Network Server at least")
	case (c.RecipientKey == "") != (len(c.Silicon) == 0):
		return errors.New("recipientKey and silicon: want a key and one file at least, or neither")
	case c.State == "":
		return errors.New("state is missing: where counters and sessions are kept")
	}
	seen := map[string]bool{}
	for _, n := range c.NS {
		if n.Name == "" || seen[n.Name] {
			return errors.New("ns: each needs a name of its own")
		}
		seen[n.Name] = true
		if _, err := n.nsid(); err != nil {
			return fmt.Errorf("ns %s: nsid: %w", n.Name, err)
		}
	}
	clear(seen)
	for _, a := range c.AS {
		if a.Name == "" || seen[a.Name] {
			return errors.New("as: each needs a name of its own")
		}
		seen[a.Name] = true
	}
	return nil
}

func (n NSConfig) nsid() (lorawan.EUI64, error) {
	if n.NSID == "" {
		return lorawan.EUI64{}, nil
	}
	return lorawan.ParseEUI64(n.NSID)
}

func (c *Config) resolve(dir string) {
	abs := func(path *string) {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
	abs(&c.ServerCA)
	abs(&c.RecipientKey)
	abs(&c.State)
	for i := range c.Silicon {
		abs(&c.Silicon[i])
	}
	for i := range c.NS {
		abs(&c.NS[i].Cert)
		abs(&c.NS[i].Key)
	}
	for i := range c.AS {
		abs(&c.AS[i].Cert)
		abs(&c.AS[i].Key)
	}
}

// names lists what there is to choose from.
func names[T any](all []T, name func(T) string) string {
	list := make([]string, len(all))
	for i, v := range all {
		list[i] = name(v)
	}
	return strings.Join(list, ", ")
}
