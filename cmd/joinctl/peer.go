package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"

	"joinery/client"

	"github.com/spf13/cobra"
)

func (a *app) peerCommand() *cobra.Command {
	c := &cobra.Command{Use: "peer", Short: "Network Servers and Application Servers that may speak to this server"}
	c.AddCommand(a.peerAddCommand(), a.peerListCommand(), a.peerShowCommand(), a.peerChangeCommand(), a.peerRemoveCommand(), a.peerCheckCommand(), a.peerRefusalsCommand())
	return c
}

func (a *app) peerAddCommand() *cobra.Command {
	var p peerFlags
	var keks kekFlags
	c := a.command(&cobra.Command{
		Use:   "add NAME",
		Short: "Let a Network Server or Application Server in",
		Long: `Let a Network Server (--net-id), an Application Server (--as-id) or one that is both
in, by its client certificate: its public key (--cert or --spki), a CA that serves it
alone (--ca), or a name under a CA that serves others, too (--ca with --san).

A Network Server needs a key encryption key (--ns-kek LABEL=FILE), so that session
keys never travel readable; the file holds the key as 32, 48 or 64 hexadecimal
digits or as 16, 24 or 32 bytes, and the peer has the same key under the same
label. It is encrypted to the server before it leaves this machine. --clear-keys
goes without; it asks for the peer's name, and each device's owner must consent, too.

An Application Server that claims devices may bring the KEK of their AppSKey with each
claim (--claim-keks); --hide-existence answers its claims of devices that are unknown
or another's like a wrong token.

--for sets what a known Network Server needs: 'chirpstack' leaves SessionKeyID out
of answers that carry AppSKey and takes KEKs of 16 bytes only; 'the-things-stack'
keeps SessionKeyID, by which its Application Server fetches AppSKey.`,
		Example: `  joinctl peer add "Example Networks" --net-id 60002A --cert ns.crt --ns-kek ns-60002A-v1=ns.kek
  joinctl peer add "Our ChirpStack" --for chirpstack --net-id 000001 --ca chirpstack-ca.crt \
      --ns-kek chirpstack-v1=chirpstack.kek
  joinctl peer add "Payload service" --as-id as.example.com --ca ca.crt --san as.example.com \
      --as-kek as-v1=as.kek
  joinctl peer add "Our Things Stack" --as-id tts.example.com --cert dcs.crt --claim-keks`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		in := client.NewPeer{PeerSettings: client.PeerSettings{Name: args[0]}}
		if err := p.apply(&in.PeerSettings); err != nil {
			return err
		}
		if in.ClearKeys {
			confirm, err := a.confirmClearKeys(in.Name, p.confirm)
			if err != nil {
				return err
			}
			in.ConfirmClearKeys = confirm
		}
		var err error
		if in.KEKs, err = a.sealKEKs(ctx, api, keks, p.preset); err != nil {
			return err
		}
		made, err := api.AddPeer(ctx, in)
		if err != nil {
			return err
		}
		return a.done(made, "added %s (%s)", made.Name, made.ID)
	})
	p.register(c)
	keks.register(c)
	return c
}

// confirmClearKeys has a person say by name what weakens custody.
func (a *app) confirmClearKeys(name, confirmed string) (string, error) {
	if confirmed != "" && confirmed != name {
		return "", usagef("--confirm must be the peer's name")
	}
	question := fmt.Sprintf("Session keys will travel to %q unwrapped: whoever runs that peer, or ends its TLS, reads them", clean(name))
	return name, a.confirm(confirmed != "", question, name, "--confirm with the peer's name")
}

func (a *app) peerListCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "list",
		Short:   "List peers",
		Example: "  joinctl peer list",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		peers, err := api.Peers(ctx)
		if err != nil {
			return err
		}
		return showList(a, peers, columns[client.Peer]{
			names: []string{"name", "NetIDs", "NSIDs", "AS-IDs", "known by", "state", "id"},
			cells: func(p client.Peer) []any {
				return []any{p.Name, orDash(joined(p.NetIDs)), orDash(joined(p.NSIDs)), orDash(joined(p.ASIDs)), kindsOf(p), peerState(p), p.ID}
			},
			empty: "no peers; 'joinctl peer add' lets one in",
		})
	})
}

func kindsOf(p client.Peer) string {
	var kinds []string
	for _, c := range p.Credentials {
		kinds = append(kinds, c.Kind)
	}
	return strings.Join(kinds, " ")
}

func peerState(p client.Peer) string {
	switch {
	case p.Suspended:
		return "suspended"
	case p.ClearKeys:
		return "CLEAR KEYS"
	}
	return "ready"
}

func (a *app) peerShowCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "show PEER",
		Short:   "Show one peer",
		Long:    "Show one peer, by name or id.",
		Example: `  joinctl peer show "Example Networks"`,
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		p, err := findPeer(ctx, api, args[0])
		if err != nil {
			return err
		}
		return a.show(p, func() error { return a.peerFacts(p) })
	})
}

func (a *app) peerFacts(p client.Peer) error {
	facts := []any{"name", p.Name, "id", p.ID, "organisation", p.Organisation, "state", peerState(p),
		"NetIDs", joined(p.NetIDs), "NSIDs", joined(p.NSIDs), "AS-IDs", joined(p.ASIDs),
		"clear keys", yesNo(p.ClearKeys), "SessionKeyID", map[bool]string{false: "sent", true: "left out where AppSKey is given"}[p.OmitSessionKeyID],
		"AppSKey at least", orDash(p.AppSKeyAtLeast), "discloses devices", yesNo(p.DiscloseDevices),
		"any NSID", yesNo(p.IgnoreNSID), "hides devices from it", yesNo(p.HideExistence), "KEKs with claims", yesNo(p.ClaimKEKs), "added", when(p.CreatedAt, "?")}
	for _, c := range p.Credentials {
		facts = append(facts, "known by", describeCredential(c))
	}
	return a.facts(facts...)
}

// describeCredential names a credential for people.
func describeCredential(c client.Credential) string {
	if c.Kind == "spki" {
		return "public key with SHA-256 " + c.SPKI
	}
	sum := sha256.Sum256(c.CA)
	name := "CA " + hex.EncodeToString(sum[:8]) + "…"
	if crt, err := x509.ParseCertificate(c.CA); err == nil {
		name = fmt.Sprintf("CA %q, valid to %s", crt.Subject.String(), crt.NotAfter.Format("2006-01-02"))
	}
	if c.SAN != "" {
		return "name " + c.SAN + " under " + name
	}
	return "any certificate under " + name
}

func (a *app) peerChangeCommand() *cobra.Command {
	var p peerFlags
	c := a.command(&cobra.Command{
		Use:   "change PEER",
		Short: "Change a peer, effective at once",
		Long: `Change a peer. What no flag names stays. A flag that takes several values replaces
them all, and the credential flags together replace all credentials; with --add they
come to those that are there, as when a certificate is about to change.`,
		Example: `  joinctl peer change "Example Networks" --cert new.crt --add
  joinctl peer change "Example Networks" --suspended=true
  joinctl peer change "Example Networks" --name "Example Networks Ltd"`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		before, err := findPeer(ctx, api, args[0])
		if err != nil {
			return err
		}
		in := client.PeerChange{PeerSettings: before.PeerSettings}
		if err := p.apply(&in.PeerSettings); err != nil {
			return err
		}
		if in.ClearKeys && !before.ClearKeys {
			if in.ConfirmClearKeys, err = a.confirmClearKeys(in.Name, p.confirm); err != nil {
				return err
			}
		}
		made, err := api.ChangePeer(ctx, before.ID, in)
		if err != nil {
			return err
		}
		return a.done(made, "changed %s (%s)", made.Name, made.ID)
	})
	p.register(c)
	c.Flags().StringVar(&p.name, "name", "", "new name")
	c.Flags().BoolVar(&p.add, "add", false, "add the given identifiers and credentials instead of replacing those that are there")
	c.Flags().BoolVar(&p.suspended, "suspended", false, "refuse it without forgetting it")
	return c
}

func (a *app) peerRemoveCommand() *cobra.Command {
	var yes bool
	c := a.command(&cobra.Command{
		Use:   "remove PEER",
		Short: "Let a peer in no longer, and retire its KEKs",
		Long: `Let a peer in no longer: connections that it has open end with their next request,
and its KEKs are retired. Devices that are bound to its network cannot join until they
are bound to another, or the peer is added again.`,
		Example: `  joinctl peer remove "Example Networks"
  joinctl peer remove "Example Networks" --yes`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		p, err := findPeer(ctx, api, args[0])
		if err != nil {
			return err
		}
		question := fmt.Sprintf("Removing %q stops the joins of its devices, and its KEKs are retired for ever", clean(p.Name))
		if err := a.confirm(yes, question, p.Name, "--yes"); err != nil {
			return err
		}
		if err := api.RemovePeer(ctx, p.ID); err != nil {
			return err
		}
		return a.done(map[string]string{"peer": p.ID.String()}, "removed %s", p.Name)
	})
	yesFlag(c, &yes)
	return c
}
