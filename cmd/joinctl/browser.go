package main

import (
	"context"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"time"

	"joinery"
	"joinery/client"
)

// errNoBrowser says that a server does not let people sign in.
var errNoBrowser = errors.New("nobody can sign in with a browser at that server")

// signInByBrowser has a person agree in a browser, on this machine or another,
// and gives the session. errNoBrowser where the server offers no such thing.
func (a *app) signInByBrowser(ctx context.Context, p profile) (client.FinishedLogin, error) {
	api, err := dialAnonymously(p)
	if err != nil {
		return client.FinishedLogin{}, err
	}
	defer api.Close()
	login, err := api.BeginLogin(ctx, client.NewLogin{Name: programName()})
	if problem, ok := errors.AsType[*client.Problem](err); ok && problem.Code == joinery.CodeNotFound {
		return client.FinishedLogin{}, errNoBrowser
	}
	if err != nil {
		return client.FinishedLogin{}, err
	}
	if u, err := url.Parse(login.URL); err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return client.FinishedLogin{}, errors.New("the server names no page to sign in on")
	}
	a.sayf("Sign in at   %s\nand compare  %s\n", clean(login.URL), clean(login.Code))
	openBrowser(ctx, login.URL)
	return waitForPerson(ctx, api, login)
}

// programName is what the person is shown, to know this program by.
func programName() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		return "joinctl"
	}
	return cut("joinctl on "+clean(host), 128)
}

// openBrowser shows a page where there is a desktop to show it on. It is a help:
// the address was said before.
func openBrowser(ctx context.Context, address string) {
	var c *exec.Cmd
	switch {
	case runtime.GOOS == "darwin":
		c = exec.CommandContext(ctx, "open", address)
	case runtime.GOOS == "windows":
		c = exec.CommandContext(ctx, "rundll32", "url.dll,FileProtocolHandler", address)
	case os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != "":
		c = exec.CommandContext(ctx, "xdg-open", address)
	default:
		return
	}
	if c.Start() == nil {
		go func() { _ = c.Wait() }() // whether it showed anything the person sees
	}
}

// waitForPerson asks until the person has agreed, or it took too long.
func waitForPerson(ctx context.Context, api *client.Client, login client.Login) (client.FinishedLogin, error) {
	ctx, cancel := context.WithDeadline(ctx, login.ExpiresAt)
	defer cancel()
	every := time.Duration(max(login.PollEvery, 1)) * time.Second
	for {
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return client.FinishedLogin{}, errors.New("nobody signed in in time; give the command again")
			}
			return client.FinishedLogin{}, ctx.Err()
		case <-time.After(every):
		}
		finished, err := api.FinishLogin(ctx, client.LoginPoll{Secret: login.Secret})
		problem, refused := errors.AsType[*client.Problem](err)
		switch {
		case err == nil && finished.Done:
			return finished, nil
		case refused && (problem.Code == joinery.CodeRateLimited || problem.Code == joinery.CodeUnavailable):
			every *= 2
		case err != nil && ctx.Err() == nil:
			return client.FinishedLogin{}, err
		}
	}
}
