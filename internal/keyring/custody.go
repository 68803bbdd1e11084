package keyring

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"joinery"
)

// Errors of tokens outside of this process's memory.
var (
	// ErrToken: the token cannot be reached, or forgot who asks. Nothing was
	// done; the same request may succeed later.
	ErrToken = errors.New("keyring: the token cannot be reached")
	// ErrLimit: more was asked for one device than it may have in a minute.
	ErrLimit = errors.New("keyring: too many answers with keys of one device")
	// ErrNotServed: the token cannot keep keys of this origin as it must, so it
	// serves none of them; Custody says why.
	ErrNotServed = errors.New("keyring: this token does not serve keys of this origin")
	// ErrLevel: a token keeps keys less well than its operator asked for.
	ErrLevel = errors.New("keyring: custody is below the configured minimum")
)

// Level says how much of a root key and its session keys this process sees.
// Higher is better.
type Level uint8

// Levels of custody.
const (
	// LevelInMemory: root keys are in memory for the length of one verb.
	LevelInMemory Level = iota + 1
	// LevelECBOracle: root keys never are, session keys are briefly.
	LevelECBOracle
	// LevelInToken: neither root nor session keys ever are bytes in a process of
	// ours.
	LevelInToken
)

var levelText = map[Level]string{LevelInMemory: "in-memory", LevelECBOracle: "ecb-oracle", LevelInToken: "in-token"}

// String gives the name by which people and settings know a level.
func (l Level) String() string { return levelText[l] }

// ParseLevel reads a name of a level.
func ParseLevel(text string) (Level, error) {
	for l, name := range levelText {
		if name == text {
			return l, nil
		}
	}
	return 0, fmt.Errorf("%w: a level is in-token, ecb-oracle or in-memory", ErrRequest)
}

// Custody says at which level a token serves keys of one origin and derivation
// profile.
type Custody struct {
	Origin  joinery.Origin
	Profile string // of derived keys
	Level   Level
	// Served is not set where the token serves no such keys; Why says why not, or
	// why not at a higher level.
	Served bool
	Why    string
}

// String gives a line for people.
func (c Custody) String() string {
	line := c.Origin.String()
	if c.Profile != "" {
		line += " " + c.Profile
	}
	line += ": " + c.Level.String()
	if !c.Served {
		line += ", not served"
	}
	if c.Why != "" {
		line += " (" + c.Why + ")"
	}
	return line
}

// CheckCustody fails with ErrLevel where keys are served below a level. What is
// not served is below no level.
func CheckCustody(list []Custody, minimum Level) error {
	for _, c := range list {
		if c.Served && c.Level < minimum {
			return fmt.Errorf("%w %s: %s", ErrLevel, minimum, c)
		}
	}
	return nil
}

// Custody tells at which level keys are kept, by origin and profile.
func (k *Keyring) Custody() []Custody {
	k.gate.RLock()
	defer k.gate.RUnlock()
	list := slices.Clone(k.token.Custody())
	slices.SortStableFunc(list, func(a, b Custody) int { return cmp.Compare(a.Origin, b.Origin) })
	return list
}
