package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"joinery/internal/ceremony"
	"joinery/internal/harden"
	"joinery/internal/keyring"
	"joinery/internal/keyring/hsm"
	"joinery/internal/seal"
)

// ceremonyArgument makes this program carry out a ceremony, for `joinery ceremony
// run`: the job comes on standard input, the answer goes to answerFD, since
// libraries print where they like.
const ceremonyArgument = "ceremony"

const answerFD = 3

// maxJob bounds what the program is told.
const maxJob = 1 << 20

// runCeremony is the program where it carries out a ceremony.
func runCeremony(stdin io.Reader, answer io.Writer, stderr io.Writer) int {
	if err := harden.Process(); err != nil {
		fmt.Fprintf(stderr, "joinery-hsm: %v\n", err)
		return 1
	}
	harden.LockMemory()
	out := json.NewEncoder(answer)
	var job ceremony.Job
	err := json.NewDecoder(io.LimitReader(stdin, maxJob)).Decode(&job)
	switch {
	case err != nil:
	case job.Change != nil:
		var left ceremony.Generations
		if left, err = change(context.Background(), *job.Change); err == nil {
			err = out.Encode(ceremony.Message{Generations: &left})
		}
	default:
		c := &conductor{job: job, plan: job.Plan, said: func(s ceremony.Step) error { return out.Encode(ceremony.Message{Step: &s}) }}
		var report []byte
		if report, err = c.conduct(context.Background()); err == nil {
			err = out.Encode(ceremony.Message{Report: report})
		}
	}
	if err != nil {
		return told(out.Encode(ceremony.Message{Error: err.Error()}), stderr)
	}
	return 0
}

// told gives the exit code of a failure that was, or was not, told.
func told(err error, stderr io.Writer) int {
	if err != nil {
		fmt.Fprintf(stderr, "joinery-hsm: nobody hears: %v\n", err)
	}
	return 1
}

// conductor carries out a plan, step by step.
type conductor struct {
	job     ceremony.Job
	plan    ceremony.Plan
	said    func(ceremony.Step) error
	report  ceremony.Report
	custody hsm.CustodyKey
	// targets are the generations that keys get which the plan rotates, by its names
	// for them.
	targets map[string]uint32
}

func (c *conductor) conduct(ctx context.Context) ([]byte, error) {
	if err := c.plan.Check(); err != nil {
		return nil, err
	}
	c.report = ceremony.Report{
		Ceremony: c.plan.Name, Purpose: c.plan.Purpose, Participants: c.plan.Participants, Plan: c.job.SHA256,
		Program: c.job.Program, Started: time.Now().UTC().Truncate(time.Second), Masters: []ceremony.Made{},
	}
	if c.job.Apply {
		if err := os.MkdirAll(c.plan.Directory, 0o700); err != nil {
			return nil, err
		}
	}
	if err := c.setTargets(); err != nil {
		return nil, err
	}
	if err := c.custodyKey(); err != nil {
		return nil, err
	}
	var signed []byte
	err := c.login(c.plan.Token, func(o *hsm.Officer) (err error) {
		signed, err = c.serverToken(ctx, o)
		return err
	})
	return signed, err
}

// step notes what became of a step.
func (c *conductor) step(outcome ceremony.Outcome, detail, format string, args ...any) error {
	s := ceremony.Step{What: fmt.Sprintf(format, args...), Outcome: outcome, Detail: detail}
	c.report.Steps = append(c.report.Steps, s)
	return c.said(s)
}

// login logs in to a token, by one try of its PIN.
func (c *conductor) login(t ceremony.Token, f func(*hsm.Officer) error) error {
	pin, err := pinFrom(t.PINFile, othersMask)
	if err != nil {
		return err
	}
	return conductWith(t, pin, f)
}

// conductWith logs in to a token with a PIN, which it clears.
func conductWith(t ceremony.Token, pin []byte, f func(*hsm.Officer) error) error {
	defer clear(pin)
	err := hsm.Conduct(hsm.Options{Module: t.Module, InitArgs: t.InitArgs, Token: t.Label, PIN: pin}, f)
	if err != nil {
		return fmt.Errorf("token %q: %w", t.Label, err)
	}
	return nil
}

// device notes which token it is, and refuses one with another serial number.
func (c *conductor) device(role string, t ceremony.Token, o *hsm.Officer) error {
	d, err := o.Device()
	if err != nil {
		return err
	}
	if t.Serial != "" && t.Serial != d.Serial {
		return fmt.Errorf("its serial number is %s, and the plan names %s", d.Serial, t.Serial)
	}
	d.Role = role
	c.report.Tokens = append(c.report.Tokens, d)
	return c.step(ceremony.Checked, fmt.Sprintf("%s %s, serial number %s", d.Manufacturer, d.Model, d.Serial), "token %q", d.Label)
}

// custodyKey makes or finds the custody key, in the token of its own role.
func (c *conductor) custodyKey() error {
	if path := c.plan.Custody.PublicKey; path != "" {
		key, err := readTransport(path)
		if err != nil {
			return err
		}
		c.custody = hsm.CustodyKey{Public: key}
		return c.step(ceremony.Checked, fingerprint(key), "public half of the custody key in %s", path)
	}
	return c.login(c.plan.Custody.Token, func(o *hsm.Officer) error {
		if err := c.device("custody", c.plan.Custody.Token, o); err != nil {
			return err
		}
		key, outcome, err := o.EnsureCustodyPair(c.job.Apply)
		if err != nil {
			return err
		}
		c.custody = key
		if err := c.step(outcome, fingerprint(key.Public), "custody key pair %s", hsm.CustodyLabel()); err != nil {
			return err
		}
		made, err := c.rotateCustodyPair(o)
		if err != nil {
			return err
		}
		return c.inventory(o, c.plan.Custody.Label, hsm.CustodyLabel(), outcome, made)
	})
}

func fingerprint(key seal.PublicKey) string {
	if key.IsZero() {
		return ""
	}
	return "fingerprint " + key.KID()
}

// inventory lists the objects of a label and its generations for the report; made is
// the label of a generation that was not there before, if there is one.
func (c *conductor) inventory(o *hsm.Officer, token, label string, outcome ceremony.Outcome, made string) error {
	list, err := o.Inventory(label)
	for _, object := range list {
		object.Token, object.Found = token, outcome == ceremony.WasThere && object.Label != made
		c.report.Objects = append(c.report.Objects, object)
	}
	return err
}

// serverToken does everything in the token that a server opens.
func (c *conductor) serverToken(ctx context.Context, o *hsm.Officer) ([]byte, error) {
	if err := c.device("keys", c.plan.Token, o); err != nil {
		return nil, err
	}
	if !c.job.Apply {
		// Before anything is said to be made: will it do?
		if err := c.levels(o.Expected(c.custody.Public.Alg())); err != nil {
			return nil, err
		}
	}
	if err := c.keys(o); err != nil {
		return nil, err
	}
	for _, m := range c.plan.Masters {
		if err := c.master(o, m); err != nil {
			return nil, fmt.Errorf("master key %s: %w", m.Name, err)
		}
	}
	if !c.job.Apply {
		return nil, nil
	}
	if err := c.publish(o); err != nil {
		return nil, err
	}
	levels, err := o.Levels(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.levels(levels); err != nil {
		return nil, err
	}
	return c.sign(o)
}

// keys makes the keys that every Join Server has, and new generations of those that
// the plan rotates.
func (c *conductor) keys(o *hsm.Officer) error {
	for _, label := range hsm.Labels() {
		outcome, err := o.Ensure(label, c.job.Apply)
		if err != nil {
			return err
		}
		if err := c.step(outcome, "", "key %s", label); err != nil {
			return err
		}
		made, err := c.rotateKey(o, label)
		if err != nil {
			return err
		}
		if err := c.inventory(o, c.plan.Token.Label, label, outcome, made); err != nil {
			return err
		}
	}
	return c.custodyHalf(o)
}

// custodyHalf puts the public half of the custody key into the server's token.
func (c *conductor) custodyHalf(o *hsm.Officer) error {
	rotates := c.plan.Rotates(ceremony.CustodyKey)
	label, outcome, err := o.EnsureCustody(c.custody, rotates, c.job.Apply)
	if err != nil {
		return err
	}
	if err := c.step(outcome, fingerprint(c.custody.Public), "public half of %s", label); err != nil {
		return err
	}
	if rotates {
		if err := c.rotatedCustody(label); err != nil {
			return err
		}
	}
	made := ""
	if outcome == ceremony.WasMade {
		made = label
	}
	return c.inventory(o, c.plan.Token.Label, hsm.CustodyLabel(), ceremony.WasThere, made)
}

// levels notes how the token keeps keys, and refuses less than the plan wants.
func (c *conductor) levels(list []keyring.Custody) error {
	minimum, err := keyring.ParseLevel(c.plan.MinimumLevel)
	if err != nil {
		return err
	}
	c.report.Levels = hsm.Reported(list)
	for _, l := range list {
		if err := c.step(ceremony.Checked, "", "custody level: %s", l); err != nil {
			return err
		}
	}
	return keyring.CheckCustody(list, minimum)
}

// publish writes the public keys for those who need them. Those of later generations
// have their number in the name.
func (c *conductor) publish(o *hsm.Officer) error {
	transport, err := o.TransportKey()
	if err != nil {
		return err
	}
	audit, err := o.Auditor(0)
	if err != nil {
		return err
	}
	custody, err := o.NewestCustody()
	if err != nil {
		return err
	}
	number, err := o.Newest(hsm.TransportLabel())
	if err != nil {
		return err
	}
	for _, key := range []struct {
		name       string
		generation uint32
		text       []byte
	}{
		{"transport", number, transport.MarshalPEM()}, {"custody", custody.Generation, custody.Public.MarshalPEM()},
		{"audit", audit.Generation, []byte(audit.Key)},
	} {
		name := key.name + ".pub"
		if key.generation > 1 {
			name = fmt.Sprintf("%s-%d.pub", key.name, key.generation)
		}
		if err := writeOnce(c.plan.Directory, name, key.text); err != nil {
			return err
		}
	}
	return nil
}

// sign ends the ceremony: the audit key signs what was done; where it is rotated, the
// one before, which is what the participants know.
func (c *conductor) sign(o *hsm.Officer) ([]byte, error) {
	before := uint32(0)
	if number, rotated := c.targets[ceremony.AuditKey]; rotated {
		before = number - 1
	}
	key, err := o.Auditor(before)
	if err != nil {
		return nil, err
	}
	c.report.Finished = time.Now().UTC().Truncate(time.Second)
	signed, err := ceremony.Sign(c.report, key.Key, key.Sign)
	if err != nil {
		return nil, err
	}
	// What a token says is not believed, a signature of its no more than the rest.
	if _, _, err := ceremony.Verify(signed); err != nil {
		return nil, err
	}
	return signed, nil
}

// readTransport reads a public key of others.
func readTransport(path string) (seal.PublicKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return seal.PublicKey{}, err
	}
	key, err := seal.ParsePublicKey(text)
	if err != nil {
		return seal.PublicKey{}, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

var errPart = errors.New("want a file with 64 hexadecimal digits, which others cannot read")

// sameFold compares key check values as people write them.
func sameFold(one, other string) bool { return strings.EqualFold(one, other) }
