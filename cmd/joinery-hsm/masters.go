package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"joinery/internal/ceremony"
	"joinery/internal/keyring"
	"joinery/internal/keyring/hsm"
	"joinery/internal/seal"
)

// master makes, takes in or finds one master key.
func (c *conductor) master(o *hsm.Officer, m ceremony.Master) error {
	have, there, err := o.FindMaster(m.Name)
	if err != nil {
		return err
	}
	if there {
		return c.foundMaster(o, m, have)
	}
	if !c.job.Apply {
		return c.plannedMaster(o, m)
	}
	made, err := c.makeMaster(o, m)
	if err != nil {
		return err
	}
	return c.haveMaster(o, m, made, ceremony.WasMade)
}

// foundMaster checks that a master key that is there is the one of the plan, and
// hands over what was not yet.
func (c *conductor) foundMaster(o *hsm.Officer, m ceremony.Master, have keyring.Master) error {
	if m.KCV != "" && !sameFold(m.KCV, have.KCV) {
		return fmt.Errorf("%w: another one, with key check value %s", hsm.ErrExists, have.KCV)
	}
	if len(m.Share) > 0 && c.job.Apply {
		if err := c.foundShares(m, have); err != nil {
			return err
		}
	}
	return c.haveMaster(o, m, have, ceremony.WasThere)
}

// haveMaster notes a master key that is in the token.
func (c *conductor) haveMaster(o *hsm.Officer, m ceremony.Master, have keyring.Master, outcome ceremony.Outcome) error {
	c.report.Masters = append(c.report.Masters, ceremony.Made{
		Name: have.Name, Profile: have.Profile, KCV: have.KCV, Origin: origin(m), Found: outcome == ceremony.WasThere,
		Components: m.Components, Shares: m.Share,
	})
	if err := c.step(outcome, "key check value "+have.KCV, "master key %s, %s", m.Name, origin(m)); err != nil {
		return err
	}
	return c.inventory(o, c.plan.Token.Label, hsm.MasterLabel(m.Name), outcome, "")
}

// origin says where the plan has a master key from.
func origin(m ceremony.Master) string {
	switch {
	case m.Accept != "":
		return "accepted"
	case len(m.Components) > 0:
		return fmt.Sprintf("of %d components", len(m.Components))
	case len(m.Share) > 0:
		return "drawn in the token and shared as it was drawn"
	}
	return "drawn in the token"
}

// plannedMaster checks what can be checked while nothing is made.
func (c *conductor) plannedMaster(o *hsm.Officer, m ceremony.Master) error {
	var err error
	detail := ""
	switch {
	case m.Accept != "":
		detail, err = c.checkShare(o, m)
	case len(m.Components) > 0:
		detail = "key check values of the components and of the whole are right"
		err = withComponents(m, func(parts []hsm.Component) error { return hsm.CheckComponents(parts, m.KCV) })
	case len(m.Share) > 0:
		_, err = c.recipients(o, m)
	}
	if err != nil {
		return err
	}
	return c.step(ceremony.Planned, detail, "master key %s, %s", m.Name, origin(m))
}

func (c *conductor) makeMaster(o *hsm.Officer, m ceremony.Master) (made keyring.Master, err error) {
	switch {
	case m.Accept != "":
		if _, err := c.checkShare(o, m); err != nil {
			return made, err
		}
		share, err := readShare(m)
		if err != nil {
			return made, err
		}
		return o.AcceptMaster(share)
	case len(m.Components) > 0:
		err = withComponents(m, func(parts []hsm.Component) error {
			made, err = o.Combine(m.Name, parts, m.KCV)
			return err
		})
		return made, err
	case len(m.Share) > 0:
		return c.shareMaster(o, m)
	}
	return o.NewMaster(m.Name)
}

// readShare reads a master key that another organisation shared.
func readShare(m ceremony.Master) (s seal.Master, err error) {
	text, err := os.ReadFile(m.Accept)
	if err != nil {
		return s, err
	}
	if s, err = seal.ParseMaster(text); err != nil {
		return s, fmt.Errorf("%s: %w", m.Accept, err)
	}
	if s.Name != m.Name {
		return s, fmt.Errorf("%w: %s holds the master key %s", hsm.ErrShare, m.Accept, s.Name)
	}
	return s, nil
}

// checkShare opens a shared master key in the token, if that has its transport key
// already, and compares the key check value with the one that was learnt over
// another way: the one in the file anybody may have written.
func (c *conductor) checkShare(o *hsm.Officer, m ceremony.Master) (detail string, err error) {
	s, err := readShare(m)
	if err != nil {
		return "", err
	}
	if !sameFold(s.KCV, m.KCV) {
		return "", fmt.Errorf("%w: %s says key check value %s, and the plan %s", hsm.ErrShare, m.Accept, s.KCV, m.KCV)
	}
	transport, err := o.TransportKey()
	if err != nil {
		return "", err
	}
	if transport.IsZero() {
		return "", fmt.Errorf("%w: the token has no transport key yet, so nothing can be shared with it: make the keys first, and accept this in the next ceremony", hsm.ErrShare)
	}
	kcv, err := o.CheckShare(s)
	if err == nil && !sameFold(kcv, m.KCV) {
		err = fmt.Errorf("%w: the key has the key check value %s, and the plan says %s", hsm.ErrShare, kcv, m.KCV)
	}
	return "it opens in the token, with key check value " + kcv, err
}

// withComponents reads what the holders brought, and clears it after f.
func withComponents(m ceremony.Master, f func([]hsm.Component) error) error {
	var parts []hsm.Component
	defer func() {
		for _, part := range parts {
			clear(part.Value)
		}
	}()
	for _, holds := range m.Components {
		value, err := readComponent(holds.File)
		if err != nil {
			return fmt.Errorf("the component of %s: %w", holds.Holder, err)
		}
		parts = append(parts, hsm.Component{Value: value, KCV: holds.KCV})
	}
	return f(parts)
}

// maxComponent bounds the file of a component: digits, and blanks between them.
const maxComponent = 256

// readComponent reads a component. An error never repeats what is in the file.
func readComponent(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&othersMask != 0 {
		return nil, fmt.Errorf("%s has mode %04o: %w", path, info.Mode().Perm(), errPart)
	}
	text := make([]byte, maxComponent)
	defer clear(text)
	n, err := io.ReadFull(f, text)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("%s: %w", path, errPart)
	}
	digits := text[:0] // in place, so that there is one copy to clear
	for _, b := range text[:n] {
		if !strings.ContainsRune(" \t\r\n-", rune(b)) {
			digits = append(digits, b)
		}
	}
	value := make([]byte, hex.DecodedLen(len(digits)))
	if _, err := hex.Decode(value, digits); err != nil || len(digits) != 64 {
		clear(value)
		return nil, fmt.Errorf("%s: %w", path, errPart)
	}
	return value, nil
}

// recipients reads whom a master key is given to, and checks that it can be.
func (c *conductor) recipients(o *hsm.Officer, m ceremony.Master) (list []seal.PublicKey, err error) {
	for _, s := range m.Share {
		key, err := readTransport(s.To)
		if err != nil {
			return nil, err
		}
		if key.KID() != s.KID {
			return nil, fmt.Errorf("%w: %s holds the key %s, and the plan names %s", hsm.ErrShare, s.To, key.KID(), s.KID)
		}
		if err := o.CanShare(key); err != nil {
			return nil, err
		}
		list = append(list, key)
	}
	return list, nil
}

// drawn is a shared master key on its way: what goes to whom, and, for this token
// itself, what it is accepted from. All of it is sealed. It is on disk before the
// key is anywhere, so that a ceremony that is cut off loses no share.
type drawn struct {
	Own    seal.Master            `json:"own"`
	Shares map[string]seal.Master `json:"shares"` // by file
}

// resumeFile is what is kept of such keys until the report is signed.
func (c *conductor) resumeFile(name string) string {
	return strings.TrimSuffix(c.plan.ResumeFile(), ".json") + "." + name + ".json"
}

// shareMaster draws a master key and gives it to others and to the token, or goes
// on where that stood.
func (c *conductor) shareMaster(o *hsm.Officer, m ceremony.Master) (made keyring.Master, err error) {
	to, err := c.recipients(o, m)
	if err != nil {
		return made, err
	}
	way, err := c.readDrawn(m.Name)
	if errors.Is(err, fs.ErrNotExist) {
		way, err = c.draw(o, m, to)
	}
	if err != nil {
		return made, err
	}
	if made, err = o.AcceptMaster(way.Own); err != nil {
		return made, err
	}
	return made, c.handOver(m, way)
}

// draw draws a master key and puts all that is sealed of it into one file.
func (c *conductor) draw(o *hsm.Officer, m ceremony.Master, to []seal.PublicKey) (way drawn, err error) {
	for _, s := range m.Share {
		path := filepath.Join(c.plan.Directory, s.File)
		if _, err := os.Lstat(path); err == nil {
			return way, fmt.Errorf("%w: %s; nothing is overwritten", hsm.ErrExists, path)
		}
	}
	shares, err := o.DrawShared(m.Name, to...)
	if err != nil {
		return way, err
	}
	way = drawn{Own: shares[len(to)], Shares: map[string]seal.Master{}}
	for i, s := range m.Share {
		way.Shares[s.File] = shares[i]
	}
	text, err := json.Marshal(way)
	if err != nil {
		return way, err
	}
	path := c.resumeFile(m.Name)
	return way, writeOnce(filepath.Dir(path), filepath.Base(path), text)
}

func (c *conductor) readDrawn(name string) (way drawn, err error) {
	text, err := os.ReadFile(c.resumeFile(name))
	if err != nil {
		return way, err
	}
	if err := json.Unmarshal(text, &way); err != nil {
		return way, fmt.Errorf("%s cannot be read: %w", c.resumeFile(name), err)
	}
	return way, nil
}

// handOver writes the shares of others, and then forgets what it kept.
func (c *conductor) handOver(m ceremony.Master, way drawn) error {
	for _, s := range m.Share {
		share, ok := way.Shares[s.File]
		if !ok {
			return fmt.Errorf("%w: the plan was changed after the key was drawn: %s was not sealed", hsm.ErrShare, s.File)
		}
		text, err := share.Marshal()
		if err != nil {
			return err
		}
		if err := writeOnce(c.plan.Directory, s.File, text); err != nil {
			return err
		}
	}
	return os.Remove(c.resumeFile(m.Name))
}

// foundShares makes sure that a shared master key that is in the token was handed
// over, too.
func (c *conductor) foundShares(m ceremony.Master, have keyring.Master) error {
	way, err := c.readDrawn(m.Name)
	if err == nil {
		return c.handOver(m, way)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, s := range m.Share {
		text, err := os.ReadFile(filepath.Join(c.plan.Directory, s.File))
		if err != nil {
			return fmt.Errorf("%w: it is there, and cannot leave any more; what was shared of it is not here: %w", hsm.ErrShare, err)
		}
		share, err := seal.ParseMaster(text)
		if err != nil || !sameFold(share.KCV, have.KCV) || share.Name != m.Name {
			return fmt.Errorf("%w: %s is of another key", hsm.ErrShare, s.File)
		}
	}
	return nil
}

// writeOnce writes a file whole, or not at all. One with the same content may be
// there; no other is overwritten.
func writeOnce(dir, name string, text []byte) (err error) {
	path := filepath.Join(dir, name)
	if have, err := os.ReadFile(path); err == nil {
		if bytes.Equal(have, text) {
			return nil
		}
		return fmt.Errorf("%w: %s, with another content; nothing is overwritten", hsm.ErrExists, path)
	}
	f, err := os.CreateTemp(dir, "."+name+"-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // it has its name, or is of no use
	if filepath.Ext(name) == ".pub" {
		err = f.Chmod(0o644) // for everybody
	}
	if err == nil {
		_, err = f.Write(text)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	// A link, unlike a renaming, replaces nothing that came meanwhile; file systems
	// of memory sticks have none.
	if err = os.Link(f.Name(), path); errors.Is(err, errors.ErrUnsupported) || errors.Is(err, os.ErrPermission) {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
