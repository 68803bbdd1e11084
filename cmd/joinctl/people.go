package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"joinery"
	"joinery/client"

	"github.com/spf13/cobra"
)

func (a *app) personCommand() *cobra.Command {
	c := &cobra.Command{Use: "person", Short: "People who sign in, and what they may do in an organisation"}
	c.AddCommand(a.personListCommand(), a.personInviteCommand(), a.personInvitationsCommand(), a.personWithdrawCommand(),
		a.personRoleCommand(), a.personRemoveCommand())
	return c
}

func (a *app) personListCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "list",
		Short:   "List who belongs to an organisation",
		Example: `  joinctl person list --org "Acme Metering"`,
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		people, err := api.People(ctx)
		if err != nil {
			return err
		}
		return showList(a, people, columns[client.Member]{
			names: []string{"name", "e-mail", "role", "since", "id"},
			cells: func(m client.Member) []any {
				return []any{m.Name, emailText(m.Person), m.Role, when(m.Since, "?"), m.ID}
			},
			empty: "nobody; 'joinctl person invite EMAIL' invites somebody",
		})
	})
}

// emailText marks an address of which nobody knows that it is the person's.
func emailText(p client.Person) string {
	if p.Email == "" || p.EmailVerified {
		return p.Email
	}
	return p.Email + " (not verified)"
}

func roleNames() string {
	var names []string
	for _, r := range joinery.Roles() {
		names = append(names, string(r))
	}
	return strings.Join(names, ", ")
}

func parseRole(text string) (joinery.Role, error) {
	if role := joinery.Role(text); slices.Contains(joinery.Roles(), role) {
		return role, nil
	}
	return "", usagef("role: want one of %s", roleNames())
}

func (a *app) personInviteCommand() *cobra.Command {
	role := string(joinery.RoleMember)
	c := a.command(&cobra.Command{
		Use:   "invite EMAIL",
		Short: "Invite somebody into an organisation; the link is shown this once",
		Long: `Invite somebody into an organisation (--org). Whoever signs in at the server's OpenID
provider with that address is in. Where there is none, send them the link: whoever has
it can take the invitation, once, within 7 days. The server sends no e-mail.

A viewer sees everything but owner tokens and changes nothing; a member does the daily
work with devices; an admin also says who belongs to the organisation.`,
		Example: `  joinctl person invite ann@example.com --role admin --org "Acme Metering"`,
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		as, err := parseRole(role)
		if err != nil {
			return err
		}
		made, err := api.Invite(ctx, client.NewInvitation{Email: args[0], Role: as})
		if err != nil {
			return err
		}
		return a.showInvitation(made, fmt.Sprintf("invited %s as %s until %s", made.Invitation.Email, made.Invitation.Role, when(made.Invitation.ExpiresAt, "?")))
	})
	c.Flags().StringVar(&role, "role", role, "what the person may do: "+roleNames())
	return c
}

// showInvitation writes the link, or where nobody signs in the token, to standard
// output, and what it is to people.
func (a *app) showInvitation(made client.MadeInvitation, what string) error {
	return a.show(made, func() error {
		a.sayf("%s; this is shown once:\n", clean(what))
		if made.URL == "" {
			a.sayf("nobody can sign in on this server yet: set sign_in.url in its configuration\n")
			return a.printf("%s\n", made.Token)
		}
		return a.printf("%s\n", made.URL)
	})
}

func (a *app) personInvitationsCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "invitations",
		Short:   "List invitations that nobody has taken yet",
		Example: `  joinctl person invitations --org "Acme Metering"`,
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		list, err := api.Invitations(ctx)
		if err != nil {
			return err
		}
		return showList(a, list, columns[client.Invitation]{
			names: []string{"e-mail", "role", "by", "until", "id"},
			cells: func(i client.Invitation) []any {
				email := i.Email
				if email == "" {
					email = "(bootstrap)"
				}
				return []any{email, i.Role, i.InvitedBy, when(i.ExpiresAt, "?"), i.ID}
			},
			empty: "no invitations",
		})
	})
}

func (a *app) personWithdrawCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "withdraw ID",
		Short:   "Withdraw an invitation",
		Example: `  joinctl person withdraw inv_00wmnq30a1s88 --org "Acme Metering"`,
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		id, err := joinery.ParseInvitationID(args[0])
		if err != nil {
			return usagef("invitation: %w ('joinctl person invitations' lists them; its token is not wanted here)", err)
		}
		if err := api.WithdrawInvitation(ctx, id); err != nil {
			return err
		}
		return a.done(map[string]string{"invitation": id.String()}, "withdrew %s", id)
	})
}

// findPerson finds a member by address or id.
func findPerson(ctx context.Context, api *client.Client, text string) (client.Member, error) {
	people, err := api.People(ctx)
	if err != nil {
		return client.Member{}, err
	}
	var found []client.Member
	for _, m := range people {
		if m.ID.String() == text || m.Email != "" && strings.EqualFold(m.Email, text) {
			found = append(found, m)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
	default: // an address that nobody vouches for may be several people's
		return client.Member{}, fmt.Errorf("%d people in the organisation have that address: name one by id, which 'joinctl person list' shows", len(found))
	}
	return client.Member{}, fmt.Errorf("nobody in the organisation has that address or id; 'joinctl person list' lists who belongs to it")
}

func (a *app) personRoleCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "role PERSON ROLE",
		Short:   "Give a member another role: " + roleNames(),
		Long:    "Give a member another role. PERSON is an address or an id. What API keys that the\nperson made may do changes with it, at once.",
		Example: `  joinctl person role ann@example.com viewer --org "Acme Metering"`,
		Args:    cobra.ExactArgs(2),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		role, err := parseRole(args[1])
		if err != nil {
			return err
		}
		m, err := findPerson(ctx, api, args[0])
		if err != nil {
			return err
		}
		if m, err = api.ChangePerson(ctx, m.ID, client.RoleChange{Role: role}); err != nil {
			return err
		}
		return a.done(m, "%s is %s now", m.Name, m.Role)
	})
}

func (a *app) personRemoveCommand() *cobra.Command {
	var keepKeys, yes bool
	c := a.command(&cobra.Command{
		Use:   "remove PERSON",
		Short: "Remove somebody from an organisation, and end the API keys that they made",
		Long: `Remove somebody from an organisation, at once. PERSON is an address or an id. The API
keys that they made for it are revoked, or with --keep-keys become the organisation's own.`,
		Example: `  joinctl person remove ann@example.com --org "Acme Metering"
  joinctl person remove ann@example.com --keep-keys --org "Acme Metering" --yes`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		m, err := findPerson(ctx, api, args[0])
		if err != nil {
			return err
		}
		keys := "and revokes for ever the API keys that they made"
		if keepKeys {
			keys = "and leaves the API keys that they made to it"
		}
		if err := a.confirm(yes, fmt.Sprintf("Removing %s takes them out of the organisation at once, %s", clean(m.Name), keys), m.Name, "--yes"); err != nil {
			return err
		}
		if err := api.RemovePerson(ctx, m.ID, keepKeys); err != nil {
			return err
		}
		return a.done(m, "removed %s", m.Name)
	})
	c.Flags().BoolVar(&keepKeys, "keep-keys", false, "keep the API keys that the person made")
	yesFlag(c, &yes)
	return c
}

func (a *app) operatorCommand() *cobra.Command {
	c := &cobra.Command{Use: "operator", Short: "The first person who runs the server"}
	c.AddCommand(a.command(&cobra.Command{
		Use:   "bootstrap",
		Short: "Make the link by which the first operator signs in",
		Long: `Make the link by which the first operator signs in, or one who lost every other way
in. It is given on the operator socket alone, serves once, for an hour, and ends the one
before. Whoever opens it joins the operator's organisation as its admin.`,
		Example: "  sudo joinctl operator bootstrap",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		made, err := api.BootstrapOperator(ctx)
		if err != nil {
			return err
		}
		return a.showInvitation(made, "made an operator's bootstrap link, good until "+when(made.Invitation.ExpiresAt, "?"))
	}))
	return c
}

// kindNames lists the kinds of organisations that people may give.
func kindNames() string { return strings.ReplaceAll(joinery.EveryKind().String(), " ", ", ") }

func parseKinds(texts []string) (kinds []joinery.OrgKind, err error) {
	for _, text := range texts {
		if !slices.Contains(joinery.EveryKind(), joinery.OrgKind(text)) {
			return nil, usagef("--kind: want one or more of %s", kindNames())
		}
		kinds = append(kinds, joinery.OrgKind(text))
	}
	return kinds, nil
}

func (a *app) orgChangeCommand() *cobra.Command {
	var name string
	var kinds []string
	c := a.command(&cobra.Command{
		Use:   "change ORGANISATION",
		Short: "Give an organisation another name or other kinds",
		Long: `Give an organisation another name, or other kinds, which bound what its people and API
keys may do. What it holds by a kind that it loses stays.`,
		Example: `  joinctl org change "Acme Metering" --kind device-maker --kind owner
  joinctl org change "Acme Metering" --name "Acme"`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		in := client.OrganisationChange{Name: name}
		var err error
		if in.Kinds, err = parseKinds(kinds); err != nil {
			return err
		}
		if in.Name == "" && len(in.Kinds) == 0 {
			return usagef("say what changes: --name or --kind")
		}
		id, err := findOrganisation(ctx, api, args[0])
		if err != nil {
			return err
		}
		o, err := api.ChangeOrganisation(ctx, id, in)
		if err != nil {
			return err
		}
		return a.done(o, "%s (%s) is %s", o.Name, o.ID, joinery.OrgKinds(o.Kinds))
	})
	c.Flags().StringVar(&name, "name", "", "new name")
	c.Flags().StringSliceVar(&kinds, "kind", nil, "what part it plays, several times for several: "+kindNames())
	return c
}

func parseScopes(texts []string) (scopes []joinery.Right, err error) {
	for _, text := range texts {
		if !slices.Contains(joinery.AllRightsInOrder(), joinery.Right(text)) {
			return nil, usagef("--scope: want one or more of %s", strings.ReplaceAll(joinery.AllRights().String(), " ", ", "))
		}
		scopes = append(scopes, joinery.Right(text))
	}
	return scopes, nil
}

// scopesText shows what a key may do.
func scopesText(scopes []joinery.Right) string {
	if joinery.RightsOf(scopes...).Contains(joinery.EveryKind().Rights()) {
		return "all"
	}
	return joined(scopes)
}
