package ceremony

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
)

// Plan is what a ceremony shall do: reviewed as a YAML file, and carried out as it
// stands.
type Plan struct {
	// Name is the ceremony's, and begins the names of the files that come of it.
	Name    string `yaml:"ceremony" json:"ceremony"`
	Purpose string `yaml:"purpose" json:"purpose,omitempty"`
	// Participants are the people who are present.
	Participants []Participant `yaml:"participants" json:"participants"`
	// Directory is where everything goes that comes out.
	Directory string `yaml:"directory" json:"directory"`
	Token     Token  `yaml:"token" json:"token"`
	// Custody is the token of the custody key, or its public half.
	Custody Custody `yaml:"custody" json:"custody"`
	// MinimumLevel is what the token must reach for every kind of keys.
	MinimumLevel string   `yaml:"minimum_level" json:"minimumLevel"`
	Masters      []Master `yaml:"masters" json:"masters"`
	// Rotate names the keys that get a new generation beside the old ones.
	Rotate []string `yaml:"rotate" json:"rotate,omitempty"`
}

// Keys that have generations, as plans and commands name them.
const (
	JoinKEK      = "join-kek"
	TransportKey = "transport-key"
	CustodyKey   = "custody-key"
	AuditKey     = "audit-key"
	ExportKey    = "export-key"
)

// Participant is somebody who takes part in a ceremony.
type Participant struct {
	Name string `yaml:"name" json:"name"`
	Role string `yaml:"role" json:"role"`
}

// Token names a hardware token.
type Token struct {
	Module   string `yaml:"module" json:"module"`
	InitArgs string `yaml:"init_args" json:"initArgs,omitempty"`
	Label    string `yaml:"label" json:"label"`
	// Serial is the token's serial number; empty is whatever has the label.
	Serial  string `yaml:"serial" json:"serial,omitempty"`
	PINFile string `yaml:"pin_file" json:"pinFile"`
}

// Custody is where the custody key is: in a token of another role, in which it is
// made, or elsewhere, so that only its public half is here.
type Custody struct {
	Token     `yaml:",inline"`
	PublicKey string `yaml:"public_key" json:"publicKey,omitempty"` // PEM file
}

// Master is a master key and where it comes from: exactly one of Generate, Accept
// and Components.
type Master struct {
	Name string `yaml:"name" json:"name"`
	// Generate draws it in the token; Share gives it to others as it is drawn.
	Generate bool    `yaml:"generate" json:"generate,omitempty"`
	Share    []Share `yaml:"share" json:"share,omitempty"`
	// Accept is the file in which another organisation shared it with this token.
	Accept string `yaml:"accept" json:"accept,omitempty"`
	// Components are its parts, of which their exclusive or is the key.
	Components []Component `yaml:"components" json:"components,omitempty"`
	// KCV is the key check value that it must have, as learnt over another way.
	KCV string `yaml:"kcv" json:"kcv,omitempty"`
}

// Share is whom a master key is given to.
type Share struct {
	To  string `yaml:"to" json:"to"`   // PEM file with their transport key
	KID string `yaml:"kid" json:"kid"` // its identifier, as learnt over another way
	// File is the name of what is handed over, in the ceremony's directory.
	File string `yaml:"file" json:"file"`
}

// Component is one part of a master key, which one person holds.
type Component struct {
	Holder string `yaml:"holder" json:"holder"`
	File   string `yaml:"file" json:"file"` // 64 hexadecimal digits
	KCV    string `yaml:"kcv" json:"kcv"`
}

// ErrPlan says that a plan cannot be carried out as it stands.
var ErrPlan = errors.New("the ceremony's plan is not right")

const maxComponents = 3

var (
	namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	kcvPattern  = regexp.MustCompile(`^[0-9A-Fa-f]{6}$`)
)

// Check tells everything that is wrong with p.
func (p Plan) Check() error {
	c := &checker{}
	c.want(namePattern.MatchString(p.Name), "ceremony: want a name of letters, digits, hyphens, dots and underscores")
	c.want(len(p.Participants) > 0, "participants: want the people who are present")
	for i, who := range p.Participants {
		c.want(who.Name != "" && who.Role != "", "participants: number %d: want a name and a role", i+1)
	}
	c.want(p.Directory != "", "directory: want where the report goes")
	c.want(slices.Contains([]string{"in-token", "ecb-oracle", "in-memory"}, p.MinimumLevel), "minimum_level: want in-token, ecb-oracle or in-memory")
	c.token("token", p.Token)
	c.custody(p)
	seen := map[string]bool{}
	for _, m := range p.Masters {
		c.want(!seen[m.Name], "masters: %q is there twice", m.Name)
		seen[m.Name] = true
		c.master(m)
	}
	for i, key := range p.Rotate {
		c.want(slices.Contains([]string{JoinKEK, TransportKey, CustodyKey, AuditKey, ExportKey}, key), "rotate: want %s, %s, %s, %s or %s", JoinKEK, TransportKey, CustodyKey, AuditKey, ExportKey)
		c.want(!slices.Contains(p.Rotate[:i], key), "rotate: %s is there twice", key)
	}
	return c.err()
}

// Rotates tells whether a key gets a new generation.
func (p Plan) Rotates(key string) bool { return slices.Contains(p.Rotate, key) }

// checker collects what is wrong, so that a reviewer reads all of it at once.
type checker struct{ wrong []error }

func (c *checker) want(right bool, format string, args ...any) {
	if !right {
		c.wrong = append(c.wrong, fmt.Errorf(format, args...))
	}
}

func (c *checker) err() error {
	if len(c.wrong) == 0 {
		return nil
	}
	return fmt.Errorf("%w:\n%w", ErrPlan, errors.Join(c.wrong...))
}

func (c *checker) token(what string, t Token) {
	c.want(t.Module != "", "%s.module: want the path of the token's PKCS #11 library", what)
	c.want(t.Label != "", "%s.label: want the token's label", what)
	c.want(t.PINFile != "", "%s.pin_file: want the file with the PIN", what)
}

func (c *checker) custody(p Plan) {
	if p.Custody.PublicKey != "" {
		c.want(p.Custody.Token == (Token{}), "custody: want a token or a public key, not both")
		return
	}
	c.token("custody", p.Custody.Token)
	c.want(p.Custody.Label != p.Token.Label || p.Custody.Module != p.Token.Module, "custody.label: want a token of another role: a server must not be able to open it")
	c.want(p.Custody.PINFile != p.Token.PINFile, "custody.pin_file: want a PIN of its own")
}

func (c *checker) master(m Master) {
	what := "masters: " + m.Name
	c.want(namePattern.MatchString(m.Name), "%s: want a name of letters, digits, hyphens, dots and underscores", what)
	ways := 0
	for _, way := range []bool{m.Generate, m.Accept != "", len(m.Components) > 0} {
		if way {
			ways++
		}
	}
	c.want(ways == 1, "%s: want exactly one of generate, accept and components", what)
	c.want(len(m.Share) == 0 || m.Generate, "%s: only what is generated can be shared; a key that is in a token never leaves it", what)
	c.want(m.KCV == "" && m.Generate || kcvPattern.MatchString(m.KCV), "%s: kcv: want the 6 hexadecimal digits learnt over another way, unless it is generated", what)
	files := map[string]bool{}
	for _, s := range m.Share {
		c.want(s.To != "" && s.KID != "", "%s: share: want a transport key and its identifier", what)
		c.want(s.File != "" && filepath.Base(s.File) == s.File && !files[s.File], "%s: share: want a file name of its own, without a path", what)
		files[s.File] = true
	}
	if len(m.Components) > 0 {
		c.components(what, m.Components)
	}
}

func (c *checker) components(what string, list []Component) {
	c.want(len(list) >= 2 && len(list) <= maxComponents, "%s: components: want 2 or %d", what, maxComponents)
	holders := map[string]bool{}
	for _, part := range list {
		c.want(part.Holder != "" && part.File != "" && kcvPattern.MatchString(part.KCV), "%s: components: want holder, file and the 6 hexadecimal digits of kcv", what)
		c.want(!holders[part.Holder], "%s: components: %s holds two", what, part.Holder)
		holders[part.Holder] = true
	}
}

// Resolve gives p with paths relative to dir made whole.
func (p Plan) Resolve(dir string) Plan {
	for _, path := range []*string{
		&p.Directory, &p.Token.PINFile, &p.Custody.PINFile, &p.Custody.PublicKey,
	} {
		*path = resolve(dir, *path)
	}
	p.Masters = slices.Clone(p.Masters)
	for i := range p.Masters {
		m := &p.Masters[i]
		m.Accept = resolve(dir, m.Accept)
		m.Share, m.Components = slices.Clone(m.Share), slices.Clone(m.Components)
		for j := range m.Share {
			m.Share[j].To = resolve(dir, m.Share[j].To)
		}
		for j := range m.Components {
			m.Components[j].File = resolve(dir, m.Components[j].File)
		}
	}
	return p
}

func resolve(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// ReportFile is where the report of p goes.
func (p Plan) ReportFile() string { return filepath.Join(p.Directory, p.Name+".report.json") }

// ResumeFile is what a ceremony keeps, sealed to its own token, until a shared
// master key is in place everywhere.
func (p Plan) ResumeFile() string { return filepath.Join(p.Directory, p.Name+".resume.json") }

// RotationFile is where a ceremony notes which generations it makes, before it makes
// them: so that one that was cut off makes no others when it goes on. It holds no
// secret, and stays.
func (p Plan) RotationFile() string { return filepath.Join(p.Directory, p.Name+".rotation.json") }
