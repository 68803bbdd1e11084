package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"joinery/client"

	"github.com/spf13/cobra"
)

// What people do about where they belong themselves: join and leave.

func (a *app) orgJoinCommand() *cobra.Command {
	var file string
	var yes bool
	c := a.command(&cobra.Command{
		Use:   "join",
		Short: "Take an invitation into an organisation, for who is signed in",
		Long: `Take an invitation into an organisation. You are signed in as a person ('joinctl login').
The link or token that you were sent is asked for without showing it; away from a
terminal it is read from standard input, and --invitation-file names a file. You are
shown what the invitation is before anything happens: anybody may send anybody a link.
Whoever belongs to the organisation sees your name and address.`,
		Example: `  joinctl org join
  joinctl org join --invitation-file invitation.txt --yes`,
		Args: cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		token, err := a.askInvitation(ctx, file)
		if err != nil {
			return err
		}
		offer, err := api.ReadOffer(ctx, client.AcceptedInvitation{Token: token})
		if err != nil {
			return err
		}
		what := fmt.Sprintf("%s invites you into %s (%s): you would be %s there", clean(offer.InvitedBy), clean(offer.Name), offer.Organisation, offer.Role)
		if err := a.confirm(yes, what, clean(offer.Name), "--yes"); err != nil {
			return err
		}
		if err := api.AcceptInvitation(ctx, client.AcceptedInvitation{Token: token}); err != nil {
			return err
		}
		return a.done(offer, "you belong to %s now", offer.Name)
	})
	c.Flags().StringVar(&file, "invitation-file", "", "file with the link or token of the invitation; - for standard input")
	yesFlag(c, &yes)
	return c
}

// askInvitation reads the token of an invitation, out of its link or alone.
func (a *app) askInvitation(ctx context.Context, path string) (string, error) {
	text, err := "", error(nil)
	f, ok := a.in.(*os.File)
	switch {
	case path != "":
		text, err = a.readSecretLine(path, "invitation")
	case !ok || !isTerminal(f):
		text, err = a.readSecretLine("-", "invitation")
	default:
		a.sayf("Link or token of the invitation (it is not shown): ")
		text, err = readHidden(ctx, f)
		a.sayf("\n")
	}
	if err != nil {
		return "", err
	}
	if _, token, found := strings.Cut(text, "#invitation="); found {
		text = token
	}
	if text = strings.TrimSpace(text); text == "" {
		return "", errors.New("invitation: nothing was typed; nothing was done")
	}
	return text, nil
}

func (a *app) orgLeaveCommand() *cobra.Command {
	var yes bool
	c := a.command(&cobra.Command{
		Use:   "leave ORGANISATION",
		Short: "Leave an organisation yourself, and end the API keys that you made for it",
		Long: `Leave an organisation, at once. You are signed in as a person ('joinctl login'). The API
keys that you made for it are revoked for ever. Its last admin stays, unless nobody else
belongs to it. Who belongs to no organisation any more is forgotten here.`,
		Example: `  joinctl org leave "Acme Metering"
  joinctl org leave "Acme Metering" --yes`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		m, last, err := ownMembership(ctx, api, args[0])
		if err != nil {
			return err
		}
		what := fmt.Sprintf("Leaving %s takes you out of it at once, and revokes for ever the API keys that you made for it", clean(m.Name))
		if last {
			what += "; you belong to nothing else, and are forgotten here"
		}
		if err := a.confirm(yes, what, clean(m.Name), "--yes"); err != nil {
			return err
		}
		if err := api.LeaveOrganisation(ctx, m.Organisation); err != nil {
			return err
		}
		return a.done(m, "left %s", m.Name)
	})
	yesFlag(c, &yes)
	return c
}

// ownMembership finds where the caller belongs, by name or id, and tells whether
// they belong to nothing else.
func ownMembership(ctx context.Context, api *client.Client, text string) (m client.Membership, last bool, err error) {
	me, err := api.Me(ctx)
	if err != nil {
		return m, false, err
	}
	if me.Person == nil {
		return m, false, errors.New("only a person who signed in can leave: an API key is revoked ('joinctl key revoke'), and the operator socket belongs to nobody")
	}
	for _, m := range me.Memberships {
		if m.Organisation.String() == text || m.Name == text {
			return m, len(me.Memberships) == 1, nil
		}
	}
	return m, false, fmt.Errorf("you do not belong to %s; you belong to: %s", clean(text), clean(organisationsOf(me)))
}
