package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"joinery/client"
)

// defaultSocket is where the packaged server has its operator socket.
const defaultSocket = "/run/joinery/joinery.sock"

// place is which server to speak to, and as whom.
type place struct {
	profile // what is in force, wherever it was said
	name    string
}

// place finds the server. What is said on the command line goes before the
// environment, and that before the user's profiles. A profile is taken whole or
// not at all: its API key is never sent to a server that was named elsewhere.
func (a *app) place() (place, error) {
	p, err := a.server()
	if err != nil {
		return p, err
	}
	if orEnv(a.flags.apiKeyFile, "JOINCTL_API_KEY_FILE") != "" {
		p.Session = 0
	}
	for value, said := range map[*string]string{
		&p.APIKeyFile:   orEnv(a.flags.apiKeyFile, "JOINCTL_API_KEY_FILE"),
		&p.ServerCA:     orEnv(a.flags.serverCA, "JOINCTL_SERVER_CA"),
		&p.Organisation: orEnv(a.flags.organisation, "JOINCTL_ORG"),
	} {
		if said != "" {
			*value = said
		}
	}
	if a.anyOrg {
		p.Organisation = ""
	}
	return p, nil
}

// server finds the server alone.
func (a *app) server() (place, error) {
	f := a.flags
	if f.socket != "" && f.server != "" {
		return place{}, usagef("give --socket or --server, not both")
	}
	if f.socket != "" || f.server != "" {
		if f.profile != "" {
			return place{}, usagef("--profile names a server already; leave out --server and --socket, or change it with 'joinctl login'")
		}
		return place{profile: profile{Server: f.server, Socket: f.socket}}, nil
	}
	if f.profile != "" {
		return fromProfile(f.profile)
	}
	server, socket, name := os.Getenv("JOINCTL_SERVER"), os.Getenv("JOINCTL_SOCKET"), os.Getenv("JOINCTL_PROFILE")
	switch {
	case server != "" && socket != "":
		return place{}, usagef("JOINCTL_SOCKET and JOINCTL_SERVER are both set; unset one, or give --socket or --server")
	case server != "" || socket != "":
		if name != "" {
			return place{}, usagef("JOINCTL_PROFILE names a server, and JOINCTL_SERVER or JOINCTL_SOCKET another; unset one, or give --profile, --socket or --server")
		}
		return place{profile: profile{Server: server, Socket: socket}}, nil
	}
	return fromProfile(name)
}

// fromProfile takes the profile that is named, or the current one, or, where
// there is none, the socket of a server on this machine.
func fromProfile(name string) (place, error) {
	list, err := loadProfiles()
	if err != nil {
		return place{}, err
	}
	if name == "" {
		name = list.Current
	}
	if name == "" {
		return place{profile: profile{Socket: defaultSocket}}, nil
	}
	p, err := list.get(name)
	return place{profile: p, name: name}, err
}

// orEnv gives what a flag says, or else the environment.
func orEnv(flag, name string) string {
	if flag != "" {
		return flag
	}
	return os.Getenv(name)
}

// connect makes the client of the server that is meant.
func (a *app) connect(ctx context.Context) (*client.Client, error) {
	p, err := a.place()
	if err != nil {
		return nil, err
	}
	key := ""
	if p.APIKeyFile != "" {
		if key, err = a.readSecretLine(p.APIKeyFile, "API key"); err != nil {
			return nil, err
		}
	}
	return a.dial(ctx, p.profile, key)
}

// dial makes a client of a server, with the text of a credential or without.
func (a *app) dial(ctx context.Context, p profile, key string) (*client.Client, error) {
	opt, err := clientOptions(p)
	if err != nil {
		return nil, err
	}
	opt.APIKey = key
	api, err := client.New(opt)
	if err != nil {
		return nil, usageError{err}
	}
	if p.Organisation == "" {
		return api, nil
	}
	defer api.Close()
	if opt.Organisation, err = findOrganisation(ctx, api, p.Organisation); err != nil {
		return nil, err
	}
	return client.New(opt)
}

// dialAnonymously makes a client of a server that does not know yet who asks.
func dialAnonymously(p profile) (*client.Client, error) {
	opt, err := clientOptions(p)
	if err != nil {
		return nil, err
	}
	opt.Anonymous = true
	api, err := client.New(opt)
	if err != nil {
		return nil, usageError{err}
	}
	return api, nil
}

// clientOptions says where a server is.
func clientOptions(p profile) (client.Options, error) {
	opt := client.Options{Socket: p.Socket, Server: p.Server, UserAgent: "joinctl/" + version()}
	if p.ServerCA != "" {
		roots, err := readCA(p.ServerCA)
		if err != nil {
			return opt, err
		}
		opt.TLS = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return opt, nil
}

// readCA reads the CA that a server's certificate is under.
func readCA(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("CA of the server: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA of the server: %s holds no PEM certificate", path)
	}
	return roots, nil
}
