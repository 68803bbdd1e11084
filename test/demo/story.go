package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"joinery/test/rig"
)

// story is the demo under way.
type story struct {
	out    io.Writer
	dir    string
	began  time.Time
	server *rig.Server
	checks int
}

// actor is one device of the story.
type actor struct {
	mac     string // LoRaWAN version of its firmware
	devEUI  string
	appSKey string   // how its owner wants AppSKey to travel
	then    []string // what follows its first join
}

const joinEUI = "0200000000000000"

var cast = []actor{
	{mac: "1.0.3", devEUI: "020000FFFE000103", appSKey: "session-key-id", then: []string{"appskey", "repeat"}},
	{mac: "1.0.4", devEUI: "020000FFFE000104", appSKey: "wrapped", then: []string{"appskey", "repeat"}},
	{mac: "1.1.0", devEUI: "020000FFFE000110", appSKey: "session-key-id", then: []string{"appskey", "repeat"}},
}

func (s *story) chapter(format string, args ...any) {
	fmt.Fprintf(s.out, "\n"+format+"\n", args...)
}

func (s *story) line(format string, args ...any) {
	fmt.Fprintf(s.out, "  ✓ "+format+"\n", args...)
}

// prepare builds the programs and makes and starts a server.
func (s *story) prepare(ctx context.Context) error {
	s.chapter("0. A Join Server of your own, in %s", s.dir)
	if err := os.Mkdir(binaries(s.dir), 0o700); err != nil {
		return err
	}
	programs, err := rig.Build(ctx, binaries(s.dir))
	if err != nil {
		return err
	}
	s.line("joinery, joinctl and joinsim are built, without cgo")
	if s.server, err = programs.Quickstart(ctx, filepath.Join(s.dir, "server"), "--elements", "1"); err != nil {
		return err
	}
	s.line("its keys are made and sealed, its database is created, its small PKI is issued")
	if err := s.server.Start(ctx); err != nil {
		return err
	}
	s.line("it runs and says that it is ready; it knows networks 000013 and 000042 and Application Server as.example.com, each by its certificate")
	return nil
}

// factory makes the elements of the story: root keys nobody sees.
func (s *story) factory(ctx context.Context) error {
	s.chapter("1. The factory makes secure elements, offline")
	var silicon []string
	for _, a := range cast {
		name := "elements-" + a.devEUI + ".silicon"
		if _, err := s.server.Run(ctx, "", "joinery", "factory", "provision",
			"--key-file", s.server.Path("keys", "factory.age"),
			"--passphrase-file", s.server.Path("keys", "factory.passphrase"),
			"--master", "quickstart", "--join-eui", joinEUI, "--dev-eui-first", a.devEUI,
			"--recipient", s.server.Path("sim", "recipient.pub"),
			"--manifest", s.manifest(a), "--silicon", s.server.Path("sim", name)); err != nil {
			return err
		}
		silicon = append(silicon, name)
		s.line("element %s: manifest signed, without keys; root keys derived from the master key and sealed to the element alone", a.devEUI)
	}
	return s.server.EditSim(func(c map[string]any) { c["silicon"] = silicon })
}

func (s *story) manifest(a actor) string {
	return s.server.Path("sim", "manifest-"+a.devEUI+".json")
}

func (s *story) importElements(ctx context.Context) error {
	s.chapter("2. The device maker imports the manifests")
	for _, a := range cast {
		if _, err := s.server.Ctl(ctx, "", "import", "manifest", s.manifest(a), "--mac-version", a.mac); err != nil {
			return err
		}
		s.line("%s imported as LoRaWAN %s: signature, signer and permitted ranges verified", a.devEUI, a.mac)
	}
	return nil
}

func (s *story) claim(ctx context.Context) error {
	s.chapter("3. The owner claims the devices with the tokens from their labels")
	for _, a := range cast {
		out, err := s.server.Ctl(ctx, "", "device", "owner-token", a.devEUI, "--json")
		if err != nil {
			return err
		}
		var token struct{ OwnerToken string }
		if err := json.Unmarshal([]byte(out), &token); err != nil {
			return err
		}
		claim := []string{"claim", joinEUI + "/" + a.devEUI, "--owner-token-file", "-", "--net-id", "000013", "--as-id", "as.example.com", "--app-s-key", a.appSKey}
		if _, err := s.server.Ctl(ctx, wrong(token.OwnerToken), claim...); err == nil {
			return fmt.Errorf("a wrong owner token claimed %s", a.devEUI)
		}
		if _, err := s.server.Ctl(ctx, token.OwnerToken, claim...); err != nil {
			return err
		}
		s.line("%s claimed and bound to network 000013 and as.example.com (AppSKey: %s); a wrong token was refused before", a.devEUI, a.appSKey)
	}
	return nil
}

// wrong gives another token of the same form.
func wrong(token string) string {
	first := "A"
	if strings.HasPrefix(token, first) {
		first = "B"
	}
	return first + token[1:]
}

func (s *story) join(ctx context.Context) error {
	s.chapter("4. The devices join: join-request → Network Server → mutual TLS → Join Server → durable commit → join-accept")
	for _, a := range cast {
		if err := s.simulate(ctx, a, "--mac", a.mac, "--then", strings.Join(a.then, ",")); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) rejoin(ctx context.Context) error {
	s.chapter("5. The 1.1 device rejoins, and falls back to a 1.0 network; other Network Servers speak other dialects")
	v11 := cast[len(cast)-1]
	if err := s.simulate(ctx, v11, "--then", "rejoin0,rejoin1,rejoin2", "--protocol", "1.1", "--nsid", "0200000000000042"); err == nil {
		return errors.New("an NSID that is not the peer's was accepted")
	}
	s.line("a SenderNSID that does not belong to the certificate was refused")
	if err := s.simulate(ctx, v11, "--protocol", "1.1", "--dialect", "tts", "--then", "rejoin0,rejoin1,rejoin2"); err != nil {
		return err
	}
	return s.simulate(ctx, v11, "--dialect", "brocaar", "--network", "1.0.4")
}

func (s *story) refuse(ctx context.Context) error {
	s.chapter("6. What must not get in")
	for _, a := range cast {
		for _, attack := range [][]string{{"--replay", "--dialect", "chirpstack"}, {"--wrong-mic"}, {"--ns", "other-ns"}} {
			if err := s.simulate(ctx, a, attack...); err != nil {
				return err
			}
		}
	}
	return s.explain(ctx, cast[0])
}

// explain asks, as the owner does, why another network got nothing.
func (s *story) explain(ctx context.Context, a actor) error {
	out, err := s.server.Ctl(ctx, "", "device", "explain", a.devEUI, "--org", "operator", "--json")
	if err != nil {
		return err
	}
	var e struct {
		Refusals []struct{ Reason, What string }
	}
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		return err
	}
	for _, r := range e.Refusals {
		if r.Reason == "other-network" {
			s.line("joinctl device explain %s tells its owner: %s", a.devEUI, r.What)
			return nil
		}
	}
	return fmt.Errorf("joinctl device explain %s does not tell of the other network: %s", a.devEUI, out)
}

func (s *story) crash(ctx context.Context) error {
	s.chapter("7. kill -9, and everything still holds")
	for _, a := range cast {
		if err := s.simulate(ctx, a); err != nil {
			return err
		}
	}
	pid := s.server.PID()
	if err := s.server.Kill(); err != nil {
		return err
	}
	s.line("process %d was killed without warning", pid)
	if _, err := s.server.Run(ctx, "", "joinery", "fsck", "--config", s.server.Path("joinery.yaml"), "--keys"); err != nil {
		return err
	}
	s.line("joinery fsck finds every invariant intact, and every sealed key opens")
	if err := s.server.Start(ctx); err != nil {
		return err
	}
	s.line("it runs again")
	for _, a := range cast {
		if err := s.simulate(ctx, a, "--replay"); err != nil {
			return err
		}
		if err := s.simulate(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) end() {
	s.chapter("%d checks held, in %s. Nothing is left behind.", s.checks, time.Since(s.began).Round(time.Second))
	fmt.Fprintln(s.out, "To play yourself: make build && bin/joinery quickstart --dir play")
}

// close stops the server; where the story went wrong it shows the server's log.
func (s *story) close(err error) error {
	if s.server == nil {
		return err
	}
	if err != nil {
		fmt.Fprintf(s.out, "\nthe server's log:\n%s\n", s.server.Log())
	}
	return errors.Join(err, s.server.Stop())
}
