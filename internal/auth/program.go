package auth

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"joinery"
)

// How long a program waits for its person, and how often it asks.
const (
	programLife = 10 * time.Minute
	// PollEvery is how long a program waits between two questions.
	PollEvery = 2 * time.Second
)

// codeLetters are those of the codes that people compare: no vowels, so that no
// code is a word, and none that look alike. A code has 8, 34 bits: only somebody
// who signed in can try one, and only while it waits.
const (
	codeLetters = "BCDFGHJKLMNPQRSTVWXZ"
	codeLength  = 8
)

// Program is a program that waits for its person to agree in a browser.
type Program struct {
	Secret    string // what the program keeps, and asks with
	Code      string // what both show: "BCDF-GHJK"
	URL       string // where the person goes
	ExpiresAt time.Time
}

// newCode draws a code: 8 letters with a dash in the middle.
func newCode() string {
	var b strings.Builder
	for b.Len() < codeLength+1 {
		if b.Len() == codeLength/2 {
			b.WriteByte('-')
		}
		var draw [1]byte
		rand.Read(draw[:]) // never fails (crypto/rand)
		// 240 is the greatest multiple of 20 in a byte: every letter is as likely.
		if draw[0] < 240 {
			b.WriteByte(codeLetters[int(draw[0])%len(codeLetters)])
		}
	}
	return b.String()
}

// BeginProgram lets a program of that name wait for its person.
func (s *SignIn) BeginProgram(ctx context.Context, name string) (Program, error) {
	if err := checkName("name", name); err != nil {
		return Program{}, err
	}
	c := newCredential(programText, int64(joinery.NewSessionID()))
	for range 3 {
		p := Program{Secret: c.text(), Code: newCode(), ExpiresAt: s.timestamp().Add(programLife)}
		p.URL = s.URL() + signInPage + "#login=" + p.Code
		err := s.remember(ctx, joinery.SignIn{Hash: c.hash(), Kind: joinery.SignInProgram, Code: p.Code, Name: name}, programLife)
		if joinery.CodeOf(err) != joinery.CodeConflict { // the code is taken: rare
			return p, err
		}
	}
	return Program{}, joinery.Errorf(joinery.CodeUnavailable, "no code is free; try again")
}

// ProgramName tells a person which program waits with a code; as Agree, only in a
// browser.
func (s *SignIn) ProgramName(ctx context.Context, caller joinery.Caller, code string) (string, error) {
	ch, err := s.waiting(ctx, caller, code)
	return ch.Name, err
}

// Agree lets the program with that code act as the caller, who asks in a browser.
func (s *SignIn) Agree(ctx context.Context, caller joinery.Caller, code string) error {
	ch, err := s.waiting(ctx, caller, code)
	if err != nil {
		return err
	}
	entry := joinery.AuditEntry{At: s.timestamp(), Event: joinery.AuditProgramAgreed, Actor: caller.Name, Detail: map[string]string{
		"person": caller.Person.String(), "program": ch.Name,
	}}
	if err := s.store.AgreeToSignIn(ctx, ch.Hash, caller.Person, entry); joinery.CodeOf(err) != joinery.CodeNotFound {
		return err
	}
	return errNoProgram()
}

func errNoProgram() error {
	return joinery.Errorf(joinery.CodeNotFound, "no program waits with that code: it may have waited too long, or the code may be mistyped")
}

func (s *SignIn) waiting(ctx context.Context, caller joinery.Caller, code string) (joinery.SignIn, error) {
	began := time.Now()
	if err := requireBrowser(caller); err != nil {
		return joinery.SignIn{}, err
	}
	ch, err := s.store.SignInByCode(ctx, strings.ToUpper(strings.TrimSpace(code)))
	if err != nil && joinery.CodeOf(err) != joinery.CodeNotFound {
		return joinery.SignIn{}, err
	}
	if err != nil || ch.Person != 0 || !s.now().Before(ch.ExpiresAt) {
		wait(ctx, s.hold-time.Since(began))
		return joinery.SignIn{}, errNoProgram()
	}
	return ch, nil
}

// FinishProgram gives a program the text of its session, once its person agreed;
// "" while nobody did.
func (s *SignIn) FinishProgram(ctx context.Context, secret string) (string, joinery.Session, error) {
	c, ok := parseCredential(programText, secret)
	if !ok {
		return "", joinery.Session{}, errNoProgram()
	}
	ch, err := s.store.SignIn(ctx, c.hash())
	switch {
	case joinery.CodeOf(err) == joinery.CodeNotFound, err == nil && !s.now().Before(ch.ExpiresAt):
		return "", joinery.Session{}, errNoProgram()
	case err != nil:
		return "", joinery.Session{}, err
	case ch.Person == 0:
		return "", joinery.Session{}, nil
	}
	if ch, err = s.take(ctx, joinery.SignInProgram, c.hash()); joinery.CodeOf(err) == joinery.CodeNotFound {
		return "", joinery.Session{}, errNoProgram() // asked twice at once
	}
	if err != nil {
		return "", joinery.Session{}, err
	}
	return s.StartSession(ctx, ch.Person, joinery.SessionProgram, ch.Name)
}
