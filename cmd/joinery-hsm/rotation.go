package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"joinery/internal/ceremony"
	"joinery/internal/keyring/hsm"
	"joinery/internal/keyring/worker"
)

// labels of the keys that have generations, by the names that plans give them.
var rotating = map[string]string{
	ceremony.JoinKEK: hsm.JoinKEKLabel(), ceremony.TransportKey: hsm.TransportLabel(),
	ceremony.CustodyKey: hsm.CustodyLabel(), ceremony.AuditKey: ceremony.AuditLabel,
	ceremony.ExportKey: hsm.ExportLabel(),
}

// setTargets finds out which generations the ceremony makes, and notes them before
// it makes one: what is noted already is what a ceremony that was cut off began.
func (c *conductor) setTargets() error {
	if len(c.plan.Rotate) == 0 {
		return nil
	}
	path := c.plan.RotationFile()
	text, err := os.ReadFile(path)
	if err == nil {
		return c.readTargets(path, text)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c.targets = map[string]uint32{}
	err = c.login(c.plan.Token, func(o *hsm.Officer) error {
		for _, key := range c.plan.Rotate {
			number, err := o.FollowingInServer(rotating[key])
			if err != nil {
				return err
			}
			c.targets[key] = number
		}
		return nil
	})
	if err != nil || !c.job.Apply {
		return err
	}
	if text, err = json.Marshal(c.targets); err != nil {
		return err
	}
	return writeOnce(filepath.Dir(path), filepath.Base(path), text)
}

func (c *conductor) readTargets(path string, text []byte) error {
	if err := json.Unmarshal(text, &c.targets); err != nil {
		return fmt.Errorf("%s cannot be read: %w", path, err)
	}
	if !slices.Equal(slices.Sorted(maps.Keys(c.targets)), slices.Sorted(slices.Values(c.plan.Rotate))) {
		return fmt.Errorf("%s: the plan was changed after the ceremony began: it was to rotate %v", path, slices.Sorted(maps.Keys(c.targets)))
	}
	return nil
}

// rotateKey makes the next generation of a key, if the plan says so, and gives its
// label if it was not there before.
func (c *conductor) rotateKey(o *hsm.Officer, label string) (made string, err error) {
	for _, key := range c.plan.Rotate {
		if rotating[key] == label {
			return c.rotate(o, key)
		}
	}
	return "", nil
}

func (c *conductor) rotate(o *hsm.Officer, key string) (made string, err error) {
	label := hsm.GenerationLabel(rotating[key], c.targets[key])
	outcome, err := o.MakeGeneration(rotating[key], c.targets[key], c.job.Apply)
	if err != nil {
		return "", err
	}
	if err := c.step(outcome, "", "generation %d, key %s", c.targets[key], label); err != nil {
		return "", err
	}
	if outcome == ceremony.WasMade {
		made = label
	}
	if key == ceremony.CustodyKey || outcome == ceremony.Planned {
		return made, nil // the custody key is reported with the server's token
	}
	r := ceremony.Rotated{Key: key, Label: label, Generation: c.targets[key]}
	switch key {
	case ceremony.TransportKey:
		public, err := o.TransportKey()
		if err != nil {
			return "", err
		}
		r.KID = public.KID()
	case ceremony.ExportKey:
		have, err := o.Generations()
		if err != nil {
			return "", err
		}
		r.KID = have.Exports[len(have.Exports)-1].Thumbprint()
	case ceremony.AuditKey:
		audit, err := o.Auditor(c.targets[key])
		if err != nil {
			return "", err
		}
		r.KID = ceremony.Fingerprint(audit.Key)
	}
	c.report.Rotated = append(c.report.Rotated, r)
	return made, nil
}

// rotateCustodyPair makes the next custody key in the token of its own role, if the
// plan says so.
func (c *conductor) rotateCustodyPair(o *hsm.Officer) (made string, err error) {
	if !c.plan.Rotates(ceremony.CustodyKey) {
		return "", nil
	}
	if made, err = c.rotate(o, ceremony.CustodyKey); err != nil {
		return "", err
	}
	if !c.job.Apply {
		c.custody = hsm.CustodyKey{} // there is none yet
		return "", nil
	}
	c.custody, err = o.NewestCustody()
	return made, err
}

// rotatedCustody notes that the server's token has the next custody key. A public
// half that came in a file must truly be another one.
func (c *conductor) rotatedCustody(label string) error {
	number := c.targets[ceremony.CustodyKey]
	if want := hsm.GenerationLabel(hsm.CustodyLabel(), number); label != want {
		return fmt.Errorf("%w: %s was to come, and the public half is that of %s", hsm.ErrExists, want, label)
	}
	if c.job.Apply {
		c.report.Rotated = append(c.report.Rotated, ceremony.Rotated{
			Key: ceremony.CustodyKey, Label: label, Generation: number, KID: c.custody.Public.KID(),
		})
	}
	return nil
}

// changing is one step of a rotation, as it was asked for.
type changing struct{ ceremony.Change }

// change carries it out, and tells what the server's token has afterwards. Each may
// be asked for again.
func change(ctx context.Context, asked ceremony.Change) (g ceremony.Generations, err error) {
	c := changing{asked}
	label, known := rotating[c.Key]
	switch {
	case !known || c.Key == ceremony.AuditKey:
		return g, fmt.Errorf("there is no key %q that rotates so", c.Key)
	case c.What == ceremony.ToLook:
	case c.Key == ceremony.CustodyKey:
		err = c.changeCustody(ctx)
	case c.What == ceremony.ToMake:
		err = c.inServer(func(o *hsm.Officer) error {
			next, err := o.FollowingInServer(label)
			if err != nil {
				return err
			}
			if _, err := o.MakeGeneration(label, next, true); err != nil {
				return err
			}
			return opens(ctx, o)
		})
	case c.What == ceremony.ToRetire:
		err = c.inServer(func(o *hsm.Officer) error { return o.Retire(label) })
	default:
		err = fmt.Errorf("there is nothing like %q to do", c.What)
	}
	if err != nil {
		return g, err
	}
	err = c.inServer(func(o *hsm.Officer) error {
		have, err := o.Generations()
		g = ceremony.Generations{JoinKEK: have.JoinKEK, Custody: have.Custody, Transport: have.Transport}
		for _, s := range have.Exports {
			g.Exports = append(g.Exports, s.MarshalDER())
		}
		return err
	})
	return g, err
}

// opens makes sure that a server opens what the token holds now.
func opens(ctx context.Context, o *hsm.Officer) error {
	_, err := o.Levels(ctx)
	return err
}

// inServer logs in to the server's token.
func (c changing) inServer(f func(*hsm.Officer) error) error {
	pin, err := readPIN(worker.TokenConfig{PINFile: c.Token.PINFile, PINCredential: c.PINCredential})
	if err != nil {
		return err
	}
	return conductWith(c.Token, pin, f)
}

// inCustody logs in to the token of the custody key.
func (c changing) inCustody(f func(*hsm.Officer) error) error {
	if c.Custody == nil {
		return errors.New("the token of the custody key is not named")
	}
	pin, err := pinFrom(c.Custody.PINFile, othersMask)
	if err != nil {
		return err
	}
	return conductWith(*c.Custody, pin, f)
}

// changeCustody makes or retires a custody key: the pair in the token of its own
// role, its public half in the server's.
func (c changing) changeCustody(ctx context.Context) error {
	var known hsm.CustodyKey
	err := c.inServer(func(o *hsm.Officer) (err error) {
		known, err = o.NewestCustody()
		return err
	})
	if err != nil {
		return err
	}
	if c.What == ceremony.ToRetire {
		return c.retireCustody(known)
	}
	var made hsm.CustodyKey
	err = c.inCustody(func(o *hsm.Officer) error {
		if _, err := o.MakeGeneration(hsm.CustodyLabel(), known.Generation+1, true); err != nil {
			return err
		}
		made, err = o.NewestCustody()
		return err
	})
	if err != nil {
		return err
	}
	return c.inServer(func(o *hsm.Officer) error {
		if _, _, err := o.EnsureCustody(made, true, true); err != nil {
			return err
		}
		return opens(ctx, o)
	})
}

// retireCustody destroys the private halves of all custody keys but the one that the
// server seals to. It must be in the token that is named.
func (c changing) retireCustody(known hsm.CustodyKey) error {
	err := c.inCustody(func(o *hsm.Officer) error {
		have, err := o.NewestCustody()
		if err != nil {
			return err
		}
		if have.Generation != known.Generation || have.Public.KID() != known.Public.KID() {
			return fmt.Errorf("%w: its custody key is %s of generation %d, and the server seals to %s of generation %d",
				hsm.ErrObject, have.Public.KID(), have.Generation, known.Public.KID(), known.Generation)
		}
		return o.Retire(hsm.CustodyLabel())
	})
	inToken := err
	if err != nil && !errors.Is(err, hsm.ErrRetire) {
		return err
	}
	return c.inServer(func(o *hsm.Officer) error {
		err := o.Retire(hsm.CustodyLabel())
		if errors.Is(err, hsm.ErrRetire) {
			return inToken // nil where an earlier try came no further
		}
		return err
	})
}
