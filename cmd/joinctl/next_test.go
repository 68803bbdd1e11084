package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"joinery"
	"joinery/client"
)

// codes reads the closed set of codes off the root package's source.
func codes(t *testing.T) (out []joinery.Code) {
	t.Helper()
	files, err := filepath.Glob("../../*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok || len(v.Values) != 1 {
				return true
			}
			if kind, ok := v.Type.(*ast.Ident); ok && kind.Name == "Code" {
				text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, joinery.Code(text))
			}
			return true
		})
	}
	if len(out) < 15 {
		t.Fatalf("only %d codes found", len(out))
	}
	return out
}

func TestEveryCodeHasANextStep(t *testing.T) {
	all := codes(t)
	for _, code := range all {
		step := nextSteps[code]
		if step == "" {
			t.Errorf("a refusal %q leaves people alone: add what they do next to nextSteps in cmd/joinctl/next.go", code)
		}
		err := fmt.Errorf("wrapped: %w", &client.Problem{Code: code, Detail: "no"})
		if got := hintFor(err); got != step {
			t.Errorf("%s: %q, want %q", code, got, step)
		}
	}
	if len(nextSteps) != len(all) {
		t.Errorf("nextSteps has %d codes, and there are %d", len(nextSteps), len(all))
	}
}

func TestNextStepWithoutAnswer(t *testing.T) {
	unreachable := func(err error) error { return fmt.Errorf("%w at x: %w", client.ErrUnreachable, err) }
	for want, err := range map[string]error{
		"--server-ca":                            unreachable(x509.UnknownAuthorityError{}),
		"https://NAME":                           unreachable(x509.HostnameError{Certificate: &x509.Certificate{}, Host: "h"}),
		"renew":                                  unreachable(x509.CertificateInvalidError{Reason: x509.Expired}),
		"sudo":                                   unreachable(os.ErrPermission),
		"is the server running? name its socket": unreachable(os.ErrNotExist),
		"is that its address":                    unreachable(errors.New("connection refused")),
		"request r1":                             &client.Problem{Code: joinery.CodeInternal, RequestID: "r1"},
		"--org":                                  &client.Problem{Code: joinery.CodeInvalid, Detail: "say for which organisation"},
	} {
		if got := hintFor(err); !strings.Contains(got, want) {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
	for _, err := range []error{usagef("x"), errors.New("x"), errPartial} {
		if got := hintFor(err); got != "" {
			t.Errorf("%v: %q", err, got)
		}
	}
}

// quoted is a command of joinctl as texts for people name one.
var quoted = regexp.MustCompile(`'joinctl ([a-z][^'\n"]*)'`)

// TestCommandsInTextsExist looks at every command that an error, a help text or
// an explanation of any program names.
func TestCommandsInTextsExist(t *testing.T) {
	n := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2):
			return filepath.SkipDir
		case filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, found := range quoted.FindAllSubmatch(text, -1) {
			n++
			line := strings.NewReplacer("%s", "x", "%v", "x").Replace(string(found[1]))
			_, err := findCommand(line)
			if err != nil && strings.Contains(err.Error(), "needs an argument") {
				_, err = findCommand(line + " x") // the text leaves the value out
			}
			if err != nil {
				t.Errorf("%s names 'joinctl %s', and joinctl has no such command: %v", strings.TrimPrefix(path, "../../"), found[1], err)
			}
		}
		return nil
	})
	if err != nil || n < 30 {
		t.Errorf("%d commands found, %v", n, err)
	}
}

// TestCommandsInDocsExist looks at every command line of joinctl in the blocks
// of the documentation.
func TestCommandsInDocsExist(t *testing.T) {
	n := 0
	check := func(path string) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range shellBlocks(string(text)) {
			for _, line := range commandLines(block) {
				n++
				if _, err := checkCommandLine(line); err != nil {
					t.Errorf("%s shows 'joinctl %s', which joinctl does not take: %v", strings.TrimPrefix(path, "../../"), line, err)
				}
			}
		}
	}
	check("../../README.md")
	err := filepath.WalkDir("../../docs", func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			check(path)
		}
		return err
	})
	if err != nil || n < 10 {
		t.Errorf("%d command lines found, %v", n, err)
	}
}

// shellBlocks gives the fenced blocks of shell commands of a Markdown text.
func shellBlocks(text string) (out []string) {
	for i, part := range strings.Split("\n"+text, "\n```") {
		kind, block, _ := strings.Cut(part, "\n")
		if i%2 == 1 && (kind == "sh" || kind == "bash") {
			out = append(out, block+"\n")
		}
	}
	return out
}
