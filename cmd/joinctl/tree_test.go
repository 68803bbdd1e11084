package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// What every command keeps to, so that who learned one knows the others. The
// test walks whatever root() builds: a new command is held to it by being there.

// notOurs are commands that cobra makes, in its own words.
var notOurs = []string{"help", "completion"}

// leaves gives every command that does something.
func leaves(root *cobra.Command) (out []*cobra.Command) {
	for _, c := range root.Commands() {
		switch {
		case slices.Contains(notOurs, c.Name()):
		case c.HasSubCommands():
			out = append(out, leaves(c)...)
		default:
			out = append(out, c)
		}
	}
	return out
}

func TestTree(t *testing.T) {
	all := leaves((&app{}).root())
	if len(all) < 40 {
		t.Fatalf("only %d commands", len(all))
	}
	types := make(map[string]*pflag.Flag)
	for _, c := range all {
		t.Run(strings.TrimPrefix(c.CommandPath(), "joinctl "), func(t *testing.T) {
			checkHelp(t, c)
			checkExamples(t, c)
			checkJSON(t, c)
			checkConfirmation(t, c)
			c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
				checkFlag(t, f)
				checkSameFlag(t, types, f)
			})
		})
	}
}

func TestGroupsOfCommands(t *testing.T) {
	for _, c := range (&app{}).root().Commands() {
		if slices.Contains(notOurs, c.Name()) {
			continue
		}
		if c.GroupID == "" {
			t.Errorf("%s stands in no group of 'joinctl --help': list it in app.root()", c.Name())
		}
		if c.Short == "" {
			t.Errorf("%s says nothing about itself: give it a Short", c.Name())
		}
	}
}

// maxHelpLine is the widest line of a help text, in characters.
const maxHelpLine = 111

func checkHelp(t *testing.T, c *cobra.Command) {
	t.Helper()
	first, _ := firstRune(c.Short)
	switch {
	case c.Short == "", !unicode.IsUpper(first), strings.HasSuffix(c.Short, "."), len([]rune(c.Short)) > 80:
		t.Errorf("Short is %q: want one line of at most 80 characters that begins with a capital and ends without a full stop", c.Short)
	}
	for line := range strings.Lines(c.Long + "\n" + c.Example) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > maxHelpLine {
			t.Errorf("a line of %d characters in Long or Example: break it at %d: %s", n, maxHelpLine, line)
		}
	}
	for _, word := range strings.Fields(c.Use)[1:] {
		if !placeholder.MatchString(withoutBrackets(word)) {
			t.Errorf("Use says %q: write arguments in capitals (DEVICE, PEER, FILE, NAME…) and flags as --flag VALUE", word)
		}
	}
}

// placeholder is a word of a usage line without its brackets: an argument in
// capitals, a flag, a choice of words, or the bar between alternatives.
var placeholder = regexp.MustCompile(`^(--[a-z0-9-]+|[A-Z][A-Z0-9/=:-]*(\.[a-z]+)?…?|[a-z0-9.-]+(\|[a-z0-9.-]+)+|transport\.pub|\|)$`)

func firstRune(s string) (rune, bool) {
	for _, r := range s {
		return r, true
	}
	return 0, false
}

// checkExamples wants an example that joinctl would take: the command exists,
// its flags exist, and it has as many arguments as it wants.
func checkExamples(t *testing.T, c *cobra.Command) {
	t.Helper()
	lines := commandLines(c.Example)
	if len(lines) == 0 {
		t.Error("Example is missing: give one or more lines that begin with 'joinctl '")
	}
	shown := false
	for _, line := range lines {
		found, err := checkCommandLine(line)
		if err != nil {
			t.Errorf("the example %q is not what joinctl takes: %v", line, err)
			continue
		}
		// A command may stand in two places of the tree; one example will do.
		shown = shown || found.CommandPath() == c.CommandPath() || found.Name() == c.Name() && found.Short == c.Short
	}
	if !shown && len(lines) > 0 {
		t.Errorf("no line of Example shows %s itself", c.CommandPath())
	}
}

// commandLines gives the command lines of joinctl in a shell text, each without
// what stands before it and behind it on its line.
func commandLines(text string) (out []string) {
	text = strings.ReplaceAll(text, "\\\n", " ")
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, " #")
		for _, part := range shellSeparator.Split(line, -1) {
			if at := joinctlWord.FindStringIndex(part); at != nil {
				out = append(out, strings.TrimSpace(part[at[1]:]))
			}
		}
	}
	return out
}

// joinctlWord is the program's name where a command line may begin.
var joinctlWord = regexp.MustCompile(`(^|\s)(bin/)?joinctl `)

// shellSeparator is what ends one command on a line: pipes, redirections, lists,
// and the brackets of a substitution.
var shellSeparator = regexp.MustCompile(` \| | [0-9]?>>? ?| < |; | && | \|\| | &$|\$\(|\)`)

// checkCommandLine finds the command that a line names and has it parse its
// flags and arguments, without doing anything.
func checkCommandLine(line string) (*cobra.Command, error) {
	c, err := findCommand(line)
	if err != nil {
		return nil, err
	}
	if help, err := c.Flags().GetBool("help"); err == nil && help || c.HasSubCommands() {
		return c, nil
	}
	return c, c.ValidateArgs(c.Flags().Args())
}

// findCommand finds the command that a line names and has it parse its flags.
func findCommand(line string) (*cobra.Command, error) {
	root := (&app{}).root()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	c, rest, err := root.Find(shellWords(line))
	if err != nil {
		return nil, err
	}
	c.InitDefaultHelpFlag()
	c.InitDefaultVersionFlag()
	if err := c.ParseFlags(rest); err != nil {
		return nil, err
	}
	if c.HasSubCommands() && c.Flags().NArg() > 0 {
		return nil, fmt.Errorf("%s has no command %s", c.CommandPath(), c.Flags().Arg(0))
	}
	return c, nil
}

// shellWords splits a line at spaces, but for those in quotes.
func shellWords(line string) (out []string) {
	var word strings.Builder
	var quote rune
	in := false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, in = r, true
		case unicode.IsSpace(r):
			if in {
				out = append(out, word.String())
			}
			word.Reset()
			in = false
		default:
			word.WriteRune(r)
			in = true
		}
	}
	if in {
		out = append(out, word.String())
	}
	return out
}

// checkJSON wants the one --json of root, which a.show and its like look at.
func checkJSON(t *testing.T, c *cobra.Command) {
	t.Helper()
	if c.LocalNonPersistentFlags().Lookup("json") != nil {
		t.Error("it has a flag --json of its own: remove it, and write through a.show, showList, showSeq or a.done, which look at the one that every command has")
	}
	if c.InheritedFlags().Lookup("json") == nil {
		t.Error("it has no --json: add it below root()")
	}
}

// forEver are the verbs of what cannot be undone.
var forEver = []string{"delete", "remove", "release", "retire", "revoke", "regenerate", "unclaim", "erase"}

// checkConfirmation wants that what cannot be undone is only told of, until it is
// confirmed.
func checkConfirmation(t *testing.T, c *cobra.Command) {
	t.Helper()
	verb, _, _ := strings.Cut(c.Name(), "-")
	f := c.Flags().Lookup("yes")
	if slices.Contains(forEver, verb) && f == nil {
		t.Errorf("%s does what cannot be undone: register --yes with yesFlag and ask a.confirm before doing it", c.CommandPath())
	}
	if f != nil && (f.Value.Type() != "bool" || f.DefValue != "false") {
		t.Error("--yes is no switch: register it with yesFlag")
	}
}

// otherNames are names that one could give a flag, and the one that this
// program uses.
var otherNames = map[string]string{
	"deveui": "dev-eui", "dev_eui": "dev-eui", "eui": "dev-eui", "device-eui": "dev-eui",
	"joineui": "join-eui", "join_eui": "join-eui", "app-eui": "join-eui", "appeui": "join-eui",
	"netid": "net-id", "net_id": "net-id", "ns-id": "nsid", "asid": "as-id", "as_id": "as-id",
	"organisation": "org", "organization": "org", "tenant": "org", "owner-org": "org",
	"force": "yes", "confirmed": "yes", "assume-yes": "yes", "no-prompt": "yes",
	"dryrun": "dry-run", "plan": "dry-run", "preview": "dry-run",
	"output": "out", "output-file": "out", "outfile": "out", "to-file": "out",
	"max": "limit", "first": "limit", "page-size": "limit", "n": "limit",
	"host": "server", "url-base": "server", "endpoint": "server",
	"expiry": "expires", "ttl": "expires", "valid-until": "expires", "expires-at": "expires",
	"lorawan-version": "mac-version", "lorawan": "mac-version",
	"certificate": "cert", "crt": "cert", "quiet": "json", "format-json": "json", "verbose": "json",
}

// notSecret are flags whose name sounds like a secret and whose value is none.
var notSecret = map[string]string{
	"app-s-key":          "a policy: how AppSKey travels",
	"app-s-key-at-least": "a policy",
	"server-key":         "the thumbprint of a public key",
}

var flagName = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
var soundsSecret = regexp.MustCompile(`(^|-)(tokens?|secrets?|passwords?|passphrase|pin|keys?|keks?|codes?|credentials?)(-|$)`)

func checkFlag(t *testing.T, f *pflag.Flag) {
	t.Helper()
	switch {
	case f.Name == "help" || f.Name == "version":
		return
	case !flagName.MatchString(f.Name):
		t.Errorf("--%s: write names of flags in small letters with hyphens", f.Name)
	case otherNames[f.Name] != "":
		t.Errorf("--%s: the other commands call it --%s", f.Name, otherNames[f.Name])
	}
	if f.Shorthand != "" {
		t.Errorf("--%s has the short form -%s: leave it out; one letter is soon taken twice", f.Name, f.Shorthand)
	}
	if f.Usage == "" || strings.HasSuffix(f.Usage, ".") {
		t.Errorf("--%s: say in one line, without a full stop, what it is", f.Name)
	}
	if soundsSecret.MatchString(f.Name) && f.Value.Type() != "bool" && notSecret[f.Name] == "" && !strings.Contains(strings.ToLower(f.Usage), "file") {
		t.Errorf("--%s would put a secret into the list of processes: take the path of a file (--%s-file, with 'file' in its usage; '-' for standard input). If its value is none, say so in notSecret in this test", f.Name, f.Name)
	}
}

// checkSameFlag wants that a flag takes the same kind of value wherever it is.
func checkSameFlag(t *testing.T, seen map[string]*pflag.Flag, f *pflag.Flag) {
	t.Helper()
	if f.Name == "after" {
		return // a place in a listing: what that is each listing says
	}
	if before, ok := seen[f.Name]; ok && kindOf(before) != kindOf(f) {
		t.Errorf("--%s takes a %s here and a %s in another command: give one of them another name", f.Name, kindOf(f), kindOf(before))
	}
	seen[f.Name] = f
}

// kindOf tells what a flag takes; once or several times is the same to who
// learns it.
func kindOf(f *pflag.Flag) string {
	kind := strings.TrimSuffix(strings.TrimSuffix(f.Value.Type(), "Slice"), "Array")
	if strings.HasPrefix(kind, "uint") || strings.HasPrefix(kind, "int") {
		return "number"
	}
	return kind
}

// TestTheTreeTestFinds: each rule, broken.
func TestTheTreeTestFinds(t *testing.T) {
	for line, wrong := range map[string]bool{
		"device show 0004A310001AA90A":                    false,
		`peer add "A B" --net-id 000013 --cert ns.crt`:    false,
		"device shows 0004A310001AA90A":                   true,
		"device show":                                     true,
		"device show a b":                                 true,
		"device show 0004A310001AA90A --colour":           true,
		"device list --limit x":                           true,
		"bind 0004A310001AA90A":                           true,
		"device --help":                                   false,
		"completion bash":                                 false,
		"device":                                          false,
		"device show 0004A310001AA90A --json --org 'A B'": false,
	} {
		if c, err := checkCommandLine(line); (err != nil) != wrong {
			t.Errorf("%q: %v, %v", line, c, err)
		}
	}
	text := "$ export A=$(joinctl key make x) # joinctl no\n  printf %s x | joinctl claim D \\\n    --owner-token-file - > out\n  bin/joinctl x\n"
	if got, want := commandLines(text), []string{"key make x", "claim D      --owner-token-file -", "x"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for name, wrong := range map[string]bool{"owner-token": true, "owner-token-file": false, "key": true, "api-key-file": false, "pin": true, "key-size": true, "monkey": false} {
		if (soundsSecret.MatchString(name) && !strings.HasSuffix(name, "-file")) != wrong {
			t.Error(name)
		}
	}
	for use, good := range map[string]bool{
		"FILE.csv": true, "[JOINEUI/]DEVEUI": true, "[--net-id": true, "(--net-id": true, "ASID)": true, "NETID…": true, "LABEL=FILE": true,
		"ns|as": true, "{FILE}": true, "[DEVICE…]": true, "|": true, "DEVICE...": false, "<device>": false, "device": false,
	} {
		if placeholder.MatchString(withoutBrackets(use)) != good {
			t.Error(fmt.Sprintf("%q", use), good)
		}
	}
}
