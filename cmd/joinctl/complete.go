package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"joinery"
	"joinery/client"
	"joinery/lorawan"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Completion in shells. What an argument is, its word in the usage line says
// (DEVICE, PEER, FILE…); what a flag takes, its name. So a command that uses the
// same words as the others is completed without further ado.

// Bounds of what a shell asks for: it waits for the answer.
const (
	completeTime  = 2 * time.Second
	completeItems = 100
)

// completer gives words that begin as typed, each perhaps with a tab and a
// description.
type completer func(ctx context.Context, a *app, typed string) ([]string, error)

// argumentCompleters are by the word of the usage line, without brackets.
var argumentCompleters = map[string]completer{
	"DEVICE": completeDevices, "JOINEUI/DEVEUI": completeDevices,
	"PEER": completePeers, "KEK": completeKEKs, "KEY": completeKeys, "SIGNER": completeSigners,
	"ORG": completeOrgs, "ORGANISATION": completeOrgs, "PERSON": completePeople, "PROFILE": completeProfiles, "RANGE": completeRanges,
	"WEBHOOK": completeWebhooks,
}

// flagCompleters are by the flag's name.
var flagCompleters = map[string]completer{
	"device": completeDevices, "dev-eui": completeDevices,
	"org": completeOrgs, "profile": completeProfiles,
	"net-id": completeNetIDs, "bind-net-id": completeNetIDs, "as-id": completeASIDs, "bind-as-id": completeASIDs,
	"mac-version": words("1.0.0", "1.0.1", "1.0.2", "1.0.3", "1.0.4", "1.1.0"),
	"app-s-key":   words("clear", "wrapped", "session-key-id"), "app-s-key-at-least": words("clear", "wrapped", "session-key-id"),
	"owner": completeOrgs, "maker": completeOrgs, "status": words("active", "unbound", "suspended"), "sort": words("dev-eui", "-dev-eui", "last-join", "-last-join"),
	"type": completeEventTypes,
	"role": words("ns", "as"), "for": words(presetChirpStack, presetThingsTS), "root10": words("NwkKey", "AppKey"),
}

// completeArguments gives every command of the tree the completion of its
// arguments and flags, unless it has its own.
func (a *app) completeArguments(c *cobra.Command) {
	if words := argumentWords(c.Use); c.ValidArgsFunction == nil && !c.HasSubCommands() {
		c.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			word := wordAt(words, len(args))
			if isFileWord(word) {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return a.complete(cmd.Context(), argumentCompleters[word], typed)
		}
	}
	each := func(f *pflag.Flag) {
		if _, has := c.GetFlagCompletionFunc(f.Name); has || f.Value.Type() == "bool" || takesFile(f) {
			return
		}
		// The error says that the flag is not there, or is completed already.
		_ = c.RegisterFlagCompletionFunc(f.Name, func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
			return a.complete(cmd.Context(), flagCompleters[f.Name], typed)
		})
	}
	c.LocalNonPersistentFlags().VisitAll(each)
	c.PersistentFlags().VisitAll(each)
	for _, sub := range c.Commands() {
		a.completeArguments(sub)
	}
}

// argumentWords gives the arguments of a usage line; flags and their values are
// left out.
func argumentWords(use string) (out []string) {
	skip := true // the command's name
	for _, word := range strings.Fields(use) {
		word = withoutBrackets(word)
		switch {
		case strings.HasPrefix(word, "--"):
			skip = true
		case skip:
			skip = false
		case word != "|":
			out = append(out, word)
		}
	}
	return out
}

// brackets are what usage lines put around words that may be left out, or chosen.
var brackets = strings.NewReplacer("[", "", "]", "", "(", "", ")", "", "{", "", "}", "")

func withoutBrackets(word string) string { return brackets.Replace(word) }

// wordAt gives the word of the argument at n; one with … stands for all that
// follow.
func wordAt(words []string, n int) string {
	if n < len(words) {
		return strings.TrimSuffix(words[n], "…")
	}
	if last := len(words) - 1; last >= 0 && strings.HasSuffix(words[last], "…") {
		return strings.TrimSuffix(words[last], "…")
	}
	return ""
}

func isFileWord(word string) bool {
	return strings.HasPrefix(word, "FILE") || strings.HasPrefix(word, "DIR") || strings.HasSuffix(word, "=FILE")
}

func takesFile(f *pflag.Flag) bool {
	usage := strings.ToLower(f.Usage)
	return strings.Contains(usage, "file") || strings.Contains(usage, "path") || strings.Contains(usage, "directory")
}

// complete asks a completer. Nothing that goes wrong is shown: it would stand in
// the middle of what a person types.
func (a *app) complete(ctx context.Context, by completer, typed string) ([]string, cobra.ShellCompDirective) {
	if by == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	quiet := &app{in: strings.NewReader(""), out: a.out, err: nobody{}, flags: a.flags}
	found, err := by(ctx, quiet, typed)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	found = slices.DeleteFunc(found, func(s string) bool { return !strings.HasPrefix(strings.ToLower(s), strings.ToLower(typed)) })
	return found[:min(len(found), completeItems)], cobra.ShellCompDirectiveNoFileComp
}

// nobody takes what a completion would say.
type nobody struct{}

func (nobody) Write(b []byte) (int, error) { return len(b), nil }

// words completes to a few fixed words.
func words(list ...string) completer {
	return func(context.Context, *app, string) ([]string, error) { return slices.Clone(list), nil }
}

// described is a word with its description, as cobra wants it.
func described(word string, about ...string) string {
	return word + "\t" + clean(strings.Join(about, ", "))
}

// completeFrom completes from a listing of the server.
func completeFrom[T any](ctx context.Context, a *app, list func(context.Context, *client.Client) ([]T, error), word func(T) []string) (out []string, err error) {
	api, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer api.Close()
	items, err := list(ctx, api)
	for _, item := range items {
		out = append(out, word(item)...)
	}
	return out, err
}

// completeDevices looks for devices by how their DevEUI begins, or behind a
// JoinEUI and a slash.
func completeDevices(ctx context.Context, a *app, typed string) ([]string, error) {
	filter := client.DevicesQuery{DevEUI: strings.ToUpper(typed)}
	joinText, devText, both := strings.Cut(typed, "/")
	if both {
		joinEUI, err := lorawan.ParseEUI64(joinText)
		if err != nil {
			return nil, err
		}
		filter.JoinEUI, filter.DevEUI = joinEUI, strings.ToUpper(devText)
	}
	return completeFrom(ctx, a, func(ctx context.Context, api *client.Client) (out []client.Device, err error) {
		for d, err := range atMost(api.Devices(ctx, filter), completeItems) {
			if err != nil {
				return nil, err
			}
			out = append(out, d)
		}
		return out, nil
	}, func(d client.Device) []string {
		name := d.DevEUI.String()
		if both {
			name = deviceName(d)
		}
		return []string{described(name, d.JoinEUI.String(), stateOf(d))}
	})
}

func completeWebhooks(ctx context.Context, a *app, _ string) ([]string, error) {
	return completeFrom(ctx, a, func(ctx context.Context, api *client.Client) ([]client.Webhook, error) { return api.Webhooks(ctx) },
		func(w client.Webhook) []string { return []string{described(w.ID.String(), w.URL, w.Description)} })
}

// completeEventTypes needs no server.
func completeEventTypes(context.Context, *app, string) (types []string, err error) {
	for _, t := range joinery.EventTypes {
		types = append(types, string(t))
	}
	return types, nil
}

func completePeers(ctx context.Context, a *app, _ string) ([]string, error) {
	return completeFrom(ctx, a, func(ctx context.Context, api *client.Client) ([]client.Peer, error) { return api.Peers(ctx) },
		func(p client.Peer) []string { return []string{described(p.Name, p.ID.String())} })
}

func completeNetIDs(ctx context.Context, a *app, _ string) ([]string, error) {
	return completeFrom(ctx, a, func(ctx context.Context, api *client.Client) ([]client.Peer, error) { return api.Peers(ctx) },
		func(p client.Peer) (out []string) {
			for _, id := range p.NetIDs {
				out = append(out, described(id.String(), p.Name))
			}
			return out
		})
}

func completeASIDs(ctx context.Context, a *app, _ string) ([]string, error) {
	return completeFrom(ctx, a, func(ctx context.Context, api *client.Client) ([]client.Peer, error) { return api.Peers(ctx) },
		func(p client.Peer) (out []string) {
			for _, id := range p.ASIDs {
				out = append(out, described(id, p.Name))
			}
			return out
		})
}

func completeKEKs(ctx context.Context, a *app, _ string) ([]string, error) {
	return completeFrom(ctx, a, func(ctx context.Context, api *client.Client) ([]client.KEK, error) { return api.KEKs(ctx) },
		func(k client.KEK) []string { return []string{described(k.Label, "role "+k.Role)} })
}

func completeKeys(ctx context.Context, a *app, _ string) ([]string, error) {
	return completeFrom(ctx, a, func(ctx context.Context, api *client.Client) ([]client.APIKey, error) { return api.APIKeys(ctx) },
		func(k client.APIKey) []string { return []string{described(k.ID.String(), k.Name)} })
}

func completeSigners(ctx context.Context, a *app, _ string) ([]string, error) {
	return completeFrom(ctx, a, func(ctx context.Context, api *client.Client) ([]client.Signer, error) { return api.Signers(ctx) },
		func(s client.Signer) []string { return []string{described(s.ID.String(), s.Name)} })
}

func completeRanges(ctx context.Context, a *app, _ string) ([]string, error) {
	return completeFrom(ctx, a, func(ctx context.Context, api *client.Client) ([]client.JoinEUIRange, error) {
		return api.JoinEUIRanges(ctx)
	}, func(r client.JoinEUIRange) []string {
		return []string{described(rangeText(r.EUIRange), r.Organisation.String())}
	})
}

func completeOrgs(ctx context.Context, a *app, _ string) ([]string, error) {
	a.anyOrg = true // which one is being typed
	return completeFrom(ctx, a, func(ctx context.Context, api *client.Client) ([]client.Organisation, error) {
		return api.Organisations(ctx)
	}, func(o client.Organisation) []string { return []string{described(o.Name, o.ID.String())} })
}

func completePeople(ctx context.Context, a *app, _ string) ([]string, error) {
	return completeFrom(ctx, a, func(ctx context.Context, api *client.Client) ([]client.Member, error) { return api.People(ctx) },
		func(m client.Member) []string { return []string{described(m.ID.String(), m.Name, m.Email)} })
}

func completeProfiles(_ context.Context, _ *app, _ string) (out []string, err error) {
	list, err := loadProfiles()
	if err != nil {
		return nil, err
	}
	for _, e := range list.entries() {
		out = append(out, described(e.Name, e.where()))
	}
	return out, nil
}
