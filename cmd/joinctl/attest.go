package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"time"

	"joinery/client"
	"joinery/internal/evidence"

	"github.com/spf13/cobra"
)

func (a *app) attestCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "attest",
		Short: "What devices show of their element and firmware, and what you want of them",
		Long: `A device answers a challenge: L1 shows that its element is there, L2 that the element
has verified the firmware that booted, L3 is a token of a root of trust in the
microcontroller. 'attest challenge' writes what the bench answers, 'device attest' takes
the answer; over the radio it comes in fragments. docs/attestation.md says what each
level proves, and what not.`,
	}
	c.AddCommand(a.attestChallengeCommand(), a.attestShowCommand(), a.attestFragmentCommand(), a.attestRuleCommand(), a.attestPolicyCommand())
	return c
}

func (a *app) attestChallengeCommand() *cobra.Command {
	var life time.Duration
	var out string
	c := a.command(&cobra.Command{
		Use:   "challenge DEVICE",
		Short: "Get something for a device to answer",
		Long: `Get a challenge for a device, and write the file that the bench answers: --out is where,
without it standard output. It is good for one answer, for an hour or --valid.` + deviceHelp,
		Example: `  joinctl attest challenge 0004A310001AA90A --out challenge.json
  joinctl attest challenge 0004A310001AA90A --valid 72h --json`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		d, err := findDevice(ctx, api, args[0])
		if err != nil {
			return err
		}
		ch, err := api.MakeAttestChallenge(ctx, d.ID, client.NewAttestChallenge{ValidSeconds: uint32(life / time.Second)})
		if err != nil || a.flags.json && out == "" {
			return firstOf(err, func() error { return writeJSON(a.out, ch) })
		}
		text, err := evidence.File{JoinEUI: ch.JoinEUI, DevEUI: ch.DevEUI, Challenge: ch.Challenge}.Text()
		if err != nil {
			return err
		}
		if out == "" {
			_, err = a.out.Write(text)
			return err
		}
		if err := os.WriteFile(out, text, 0o644); err != nil {
			return err
		}
		return a.doneThen(ch, fmt.Sprintf("have the device answer it, then joinctl device attest %s --evidence FILE", d.DevEUI),
			"%s: the challenge is in %s until %s", deviceName(d), out, when(ch.ExpiresAt, "?"))
	})
	c.Flags().DurationVar(&life, "valid", time.Hour, "for how long it may be answered, a week at most")
	c.Flags().StringVar(&out, "out", "", "where the file goes (default: standard output)")
	return c
}

// firstOf gives err, or what do gives.
func firstOf(err error, do func() error) error {
	if err != nil {
		return err
	}
	return do()
}

func (a *app) deviceAttestCommand() *cobra.Command {
	var file string
	c := a.command(&cobra.Command{
		Use:   "attest DEVICE --evidence FILE",
		Short: "Show evidence of a device that was collected at the bench",
		Long: `Show what a device answered to a challenge of 'joinctl attest challenge'. What is
accepted gives the level of its kind, and no other; what proves nothing is refused with
the reason, and the challenge is used up all the same.` + deviceHelp,
		Example: "  joinctl device attest 0004A310001AA90A --evidence evidence.json",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		f, err := evidence.ParseFile(text)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if len(f.Evidence) == 0 {
			return usagef("%s: there is a challenge in it and no answer yet; have the device, or 'joinsim element attest', answer it", file)
		}
		d, err := findDevice(ctx, api, args[0])
		if err != nil {
			return err
		}
		if f.JoinEUI != d.JoinEUI || f.DevEUI != d.DevEUI {
			return usagef("%s: it is about %s/%s, another device", file, f.JoinEUI, f.DevEUI)
		}
		at, err := api.GiveEvidence(ctx, d.ID, client.NewEvidence{Kind: f.Kind, Evidence: f.Evidence})
		if err != nil {
			return err
		}
		return a.showAttestation(d, at)
	})
	c.Flags().StringVar(&file, "evidence", "", "file with the answer")
	require(c, "evidence")
	return c
}

func (a *app) attestShowCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "show DEVICE",
		Short:   "Say what a device has shown, and what you want of it",
		Long:    "Say what a device has shown of its element and firmware, what of that stands, and what\nits owner wants of it." + deviceHelp,
		Example: "  joinctl attest show 0004A310001AA90A",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		d, err := findDevice(ctx, api, args[0])
		if err != nil {
			return err
		}
		at, err := api.Attestation(ctx, d.ID)
		if err != nil {
			return err
		}
		return a.showAttestation(d, at)
	})
}

// levels say in words what a level is.
var levels = map[string]string{
	"L0": "nothing was shown, or it has ended", "L1": "possession of its element; what it runs is what its software says",
	"L2": "its element verified what booted", "L3": "a token of a root of trust in its microcontroller",
}

func (a *app) showAttestation(d client.Device, at client.Attestation) error {
	return a.show(at, func() error {
		wanted := "nothing"
		if at.Wanted.Activate != "none" {
			wanted = fmt.Sprintf("%s, %s; below it: %s", at.Wanted.Level, basisWanted(at.Wanted.Basis), at.Wanted.Activate)
		}
		if at.OwnRule {
			wanted += " (of this device alone)"
		}
		if at.Below {
			wanted += "; IT IS BELOW THAT"
			if at.Counts != at.Level {
				wanted += ", since only " + at.Counts + " rests on what is wanted"
			}
		}
		facts := []any{"device", deviceName(d), "level", at.Level + ": " + levels[at.Level], "until", when(at.Until, ""), "wanted", wanted}
		for _, r := range at.Results {
			facts = append(facts, r.Level+" shown", resultText(r))
			if r.EndedAt.IsZero() {
				facts = append(facts, r.Level+" rests on", groundText(r))
			}
		}
		if err := a.facts(facts...); err != nil || !at.Below {
			return err
		}
		a.sayf("next: joinctl attest challenge %s --out FILE; or want less: joinctl attest rule --help\n", d.DevEUI)
		return nil
	})
}

func resultText(r client.AttestationResult) string {
	what := "firmware " + r.SHA256[:16] + "… of no signed release"
	if r.Version != "" {
		what = "version " + r.Version
	}
	if r.SelfReported {
		what += ", self-reported"
	}
	text := fmt.Sprintf("%s: %s, counter %d, by %s, until %s", when(r.At, "?"), what, r.Counter, r.Verifier, when(r.Until, "?"))
	if !r.EndedAt.IsZero() {
		text += "; ended " + when(r.EndedAt, "?") + ", since it showed other firmware, or its maker took back what it rests on"
	}
	return text
}

// basisWanted says in words what results have to rest on.
func basisWanted(basis string) string {
	switch basis {
	case "chain":
		return "on certificates that lead to a pinned root"
	case "vouched":
		return "on a key that its manifest's pinned signer or its maker stands by"
	}
	return "on whatever key"
}

// groundText says in words what verified evidence, and who stands by that.
func groundText(r client.AttestationResult) string {
	g := r.RestsOn
	switch g.Key {
	case "registered":
		return fmt.Sprintf("%s: the maker's word: it registered the key %s", r.Basis, g.ProductKey)
	case "unknown":
		return r.Basis + ": it was not noted what; have the device shown anew"
	}
	signer := "a signer that is NOT PINNED"
	switch {
	case g.Pinned:
		signer = fmt.Sprintf("the pinned signer %q", g.SignerName)
	case g.SignerName != "":
		signer = fmt.Sprintf("the signer %q, which is NOT PINNED any more", g.SignerName)
	}
	if len(g.SignerSHA256) >= 16 {
		signer += " (certificate " + g.SignerSHA256[:16] + "…)"
	}
	lead := "lead"
	if !g.Pinned {
		lead = "led"
	}
	chain := map[string]string{
		"checked": "; certificates of the key " + lead + " to its pinned root", "none": "; no certificate of the key", "no-root": "; no root is pinned for the key's certificates",
		"failed": "; THE KEY'S CERTIFICATES LEAD TO NO PINNED ROOT",
	}[g.Chain]
	return fmt.Sprintf("%s: a key in the manifest of %s%s", r.Basis, signer, chain)
}

func (a *app) attestFragmentCommand() *cobra.Command {
	c := a.command(&cobra.Command{
		Use:   "fragment DEVICE FRAGMENT",
		Short: "Hand on parts of evidence that came over the radio",
		Long: `Hand on parts of compact evidence as a device sent them in uplinks: hexadecimal or
base64, one or several, in any order; - reads them from standard input, one a line. An
Application Server may as well post each as it comes.` + deviceHelp,
		Example: `  joinctl attest fragment 0004A310001AA90A 0003a1b2c3d411ff 0103a1b2c3d40102
  joinctl attest fragment 0004A310001AA90A - < uplinks.txt`,
		Args: cobra.MinimumNArgs(2),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		parts, err := a.fragments(args[1:])
		if err != nil {
			return err
		}
		d, err := findDevice(ctx, api, args[0])
		if err != nil {
			return err
		}
		var p client.EvidenceProgress
		for _, part := range parts {
			if p, err = api.GiveEvidenceFragment(ctx, d.ID, client.NewEvidenceFragment{Fragment: part}); err != nil {
				return err
			}
		}
		if p.Attestation != nil && !a.flags.json {
			return a.showAttestation(d, *p.Attestation)
		}
		return a.done(p, "%s: %d of %d fragments are there", deviceName(d), p.Have, p.Total)
	})
	return c
}

func (a *app) fragments(args []string) (parts [][]byte, err error) {
	if len(args) == 1 && args[0] == "-" {
		args = nil
		lines := bufio.NewScanner(a.in)
		for lines.Scan() {
			args = append(args, strings.Fields(lines.Text())...)
		}
		if err := lines.Err(); err != nil {
			return nil, err
		}
		if len(args) == 0 {
			return nil, usagef("standard input has no fragment: want them in hexadecimal or base64, one a line")
		}
	}
	for _, text := range args {
		b, err := hex.DecodeString(text)
		if err != nil {
			b, err = base64.StdEncoding.DecodeString(text)
		}
		if err != nil || len(b) == 0 {
			return nil, usagef("%q: want a fragment in hexadecimal or base64", text)
		}
		parts = append(parts, bytes.Clone(b))
	}
	return parts, nil
}

// basisHelp says what --basis is about.
const basisHelp = `
--basis is what results have to rest on to count: 'vouched', a key that somebody stands
by now, the pinned signer of the device's manifest or the maker that registered it;
'chain', certificates of the key that lead to a root which the operator pinned with the
signer, as of chips whose maker certifies them; 'any' takes keys of signers that are not
pinned any more, too`

func (a *app) attestRuleCommand() *cobra.Command {
	var rule client.AttestRule
	var same bool
	c := a.deviceAct(&cobra.Command{
		Use:   "rule DEVICE --level LEVEL --activate ACTION [--basis BASIS]",
		Short: "Want something else of one device than of all",
		Long: `Want something else of one device than 'joinctl attest policy' says of all; --same ends
that. Below the level, joins and rejoins go on (none), go on and are warned of where the
device is shown (warn), or are refused (refuse). It never keeps the device from leaving.
` + basisHelp + `; without --basis, as the policy has it.` + deviceHelp,
		Example: `  joinctl attest rule 0004A310001AA90A --level L1 --activate warn
  joinctl attest rule 0004A310001AA90A --level L1 --activate refuse --basis chain
  joinctl attest rule 0004A310001AA90A --same`,
	}, "noted what is wanted of it", func(ctx context.Context, api *client.Client, d client.Device) error {
		if same {
			return api.RemoveAttestRule(ctx, d.ID)
		}
		return api.SetAttestRule(ctx, d.ID, rule)
	})
	f := c.Flags()
	f.StringVar(&rule.Level, "level", "", "L0, L1, L2 or L3")
	f.StringVar(&rule.Activate, "activate", "", "none, warn or refuse")
	f.StringVar(&rule.Basis, "basis", "", "what results have to rest on to count: any, vouched or chain")
	f.BoolVar(&same, "same", false, "want of it what is wanted of all")
	c.PreRunE = func(*cobra.Command, []string) error {
		if given := rule.Level != "" && rule.Activate != ""; given == same || same && rule.Level+rule.Activate+rule.Basis != "" {
			return usagef("give --level and --activate, or --same")
		}
		return nil
	}
	return c
}

func (a *app) attestPolicyCommand() *cobra.Command {
	var p client.AttestPolicy
	c := &cobra.Command{
		Use:   "policy",
		Short: "Show or change what you want of your devices",
		Long: `Show what the organisation wants of its devices, or change it: what becomes of joins and
rejoins of a device below a level, and of claims. Refusing never keeps a device from
leaving: export, rekeying, transfer and release stay open.
` + basisHelp + `.`,
		Example: `  joinctl attest policy
  joinctl attest policy --level L1 --activate warn
  joinctl attest policy --level L1 --activate refuse --basis chain
  joinctl attest policy --level L2 --activate refuse --claim refuse --valid-days 30`,
		Args: cobra.NoArgs,
	}
	c = a.command(c, func(ctx context.Context, api *client.Client, _ []string) error {
		now, err := api.AttestPolicy(ctx)
		if err != nil {
			return err
		}
		changed := false
		for flag, set := range map[string]func(){
			"level": func() { now.Level = p.Level }, "activate": func() { now.Activate = p.Activate },
			"claim": func() { now.Claim = p.Claim }, "basis": func() { now.Basis = p.Basis }, "valid-days": func() { now.ValidDays = p.ValidDays },
		} {
			if c.Flags().Changed(flag) {
				set()
				changed = true
			}
		}
		if changed {
			if now, err = api.SetAttestPolicy(ctx, now); err != nil {
				return err
			}
		}
		return a.show(now, func() error {
			return a.facts("level", now.Level, "joins below it", now.Activate, "claims below it", now.Claim, "on basis", now.Basis+": "+basisWanted(now.Basis), "a result stands for", fmt.Sprintf("%d days", now.ValidDays))
		})
	})
	f := c.Flags()
	f.StringVar(&p.Level, "level", "", "L0, L1, L2 or L3")
	f.StringVar(&p.Activate, "activate", "", "what becomes of joins and rejoins below it: none, warn or refuse")
	f.StringVar(&p.Claim, "claim", "", "what becomes of claims below it: none, warn or refuse")
	f.StringVar(&p.Basis, "basis", "", "what results have to rest on to count: any, vouched or chain")
	f.Uint32Var(&p.ValidDays, "valid-days", 0, "for how many days a result stands")
	return c
}
