package main

import (
	"context"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
)

func (a *app) profileCommand() *cobra.Command {
	c := &cobra.Command{Use: "profile", Short: "Servers that 'joinctl login' remembered"}
	c.AddCommand(a.profileListCommand(), a.profileUseCommand(), a.profileChangeCommand(), a.profileRemoveCommand())
	return c
}

// profileEntry is a profile in a listing.
type profileEntry struct {
	Name     string `json:"name"`
	Current  bool   `json:"current"`
	SignedIn bool   `json:"signedIn"`
	profile
}

// entries gives the profiles by name.
func (p *profiles) entries() []profileEntry {
	out := []profileEntry{}
	for name, one := range p.Profiles {
		out = append(out, profileEntry{name, name == p.Current, one.Socket != "" || one.APIKeyFile != "", one})
	}
	slices.SortFunc(out, func(a, b profileEntry) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}

func (a *app) profileListCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the profiles of this user",
		Example: "  joinctl profile list\n  joinctl profile list --json",
		Args:    cobra.NoArgs,
	}
	c.RunE = func(*cobra.Command, []string) error {
		list, err := loadProfiles()
		if err != nil {
			return err
		}
		return showList(a, list.entries(), columns[profileEntry]{
			names: []string{"name", "server", "organisation", "signed in", "current"},
			cells: func(e profileEntry) []any {
				return []any{e.Name, e.where(), orDash(e.Organisation), yesNo(e.SignedIn), yesNo(e.Current)}
			},
			empty: "no profiles; 'joinctl login --server URL' makes one",
		})
	}
	return c
}

// profileAct makes a command that does something to one profile.
func (a *app) profileAct(c *cobra.Command, done string, do func(ctx context.Context, list *profiles, name string, p profile) error) *cobra.Command {
	c.Args = cobra.ExactArgs(1)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		list, err := loadProfiles()
		if err != nil {
			return err
		}
		p, err := list.get(args[0])
		if err != nil {
			return err
		}
		if err := do(cmd.Context(), list, args[0], p); err != nil {
			return err
		}
		if err := list.save(); err != nil {
			return err
		}
		return a.done(map[string]string{"profile": args[0]}, "profile %s: %s", args[0], done)
	}
	return c
}

func (a *app) profileUseCommand() *cobra.Command {
	return a.profileAct(&cobra.Command{
		Use:     "use PROFILE",
		Short:   "Use a profile from now on",
		Example: "  joinctl profile use acme",
	}, "used from now on", func(_ context.Context, list *profiles, name string, _ profile) error {
		list.Current = name
		return nil
	})
}

func (a *app) profileChangeCommand() *cobra.Command {
	return a.profileAct(&cobra.Command{
		Use:   "change PROFILE",
		Short: "Change for which organisation a profile acts, or the CA of its server",
		Long: `Change for which organisation a profile acts (--org), or the CA that its server's
certificate is under (--server-ca). Another server is another profile, with a key of
its own: 'joinctl login'.`,
		Example: `  joinctl profile change acme --org "Acme Metering"
  joinctl profile change acme --server-ca new-ca.crt`,
	}, "changed", func(ctx context.Context, list *profiles, name string, p profile) (err error) {
		if a.flags.organisation == "" && a.flags.serverCA == "" {
			return usagef("say what to change: --org or --server-ca")
		}
		if a.flags.serverCA != "" {
			if _, err := readCA(a.flags.serverCA); err != nil {
				return err
			}
			if p.ServerCA, err = filepath.Abs(a.flags.serverCA); err != nil {
				return err
			}
		}
		if a.flags.organisation != "" {
			if p.Organisation, err = a.lookUpOrganisation(ctx, p); err != nil {
				return err
			}
		}
		list.Profiles[name] = p
		return nil
	})
}

// lookUpOrganisation gives the id of the organisation that --org names, which
// the server of a profile knows.
func (a *app) lookUpOrganisation(ctx context.Context, p profile) (string, error) {
	key := ""
	if p.APIKeyFile != "" {
		var err error
		if key, err = a.readSecretLine(p.APIKeyFile, "API key"); err != nil {
			return "", err
		}
	}
	p.Organisation = ""
	api, err := a.dial(ctx, p, key)
	if err != nil {
		return "", err
	}
	defer api.Close()
	id, err := findOrganisation(ctx, api, a.flags.organisation)
	return id.String(), err
}

func (a *app) profileRemoveCommand() *cobra.Command {
	var yes bool
	c := a.profileAct(&cobra.Command{
		Use:   "remove PROFILE",
		Short: "Forget a server and its API key on this machine",
		Long:  "Forget a server and its API key on this machine. At the server nothing changes.",
		Example: `  joinctl profile remove acme
  joinctl profile remove acme --yes`,
	}, "removed", func(_ context.Context, list *profiles, name string, p profile) error {
		if err := a.confirm(yes, "Profile "+name+" ("+clean(p.where())+") and the API key that is kept for it would be forgotten", name, "--yes"); err != nil {
			return err
		}
		if _, err := list.forgetKey(name); err != nil {
			return err
		}
		delete(list.Profiles, name)
		if list.Current == name {
			list.Current = ""
		}
		return nil
	})
	yesFlag(c, &yes)
	return c
}
