package daemon

import (
	"context"
	"fmt"
	"log/slog"

	"joinery"
	"joinery/client"
	"joinery/internal/activation"
	"joinery/internal/api"
	"joinery/internal/auth"
	"joinery/internal/claim"
	"joinery/internal/config"
	"joinery/internal/fleet"
	"joinery/internal/interop"
	"joinery/internal/keyring"
	"joinery/internal/keyring/soft"
	"joinery/internal/provisioning"
	"joinery/internal/refusal"
	"joinery/internal/seal"
	"joinery/internal/store"

	"github.com/prometheus/client_golang/prometheus"
)

// OpenKeyring opens the key file that c names, and reports how its keys are
// kept.
func OpenKeyring(ctx context.Context, c config.Keys, log *slog.Logger) (*keyring.Keyring, error) {
	token, err := soft.Open(ctx, soft.Options{KeyFile: c.File, Unlock: Unlock(c)})
	if err != nil {
		return nil, err
	}
	log.Info("key file opened", "backend", "soft", "level", "in-memory",
		"protection", token.Protection().String(), "masters", len(token.Masters()))
	return keyring.New(token), nil
}

// Unlock says how the key file of c is opened.
func Unlock(c config.Keys) soft.Unlock {
	return soft.Unlock{PassphraseFile: c.PassphraseFile, IdentityFile: c.IdentityFile, Credential: c.Credential}
}

// DatabaseOptions says which database c names.
func DatabaseOptions(c config.Database) store.Options {
	return store.Options{Path: c.Path, URL: c.URL, PasswordFile: c.PasswordFile}
}

// holders is floor 2: state and keys.
type holders struct {
	db   *store.DB
	keys *keyring.Keyring
}

// openHolders opens the store first: it holds the lock that keeps a second
// server out, before anything else is touched.
func openHolders(ctx context.Context, c config.Config, o Options) (holders, error) {
	options := DatabaseOptions(c.Database)
	options.Successor, options.Logger = o.Successor, o.Log
	db, err := store.Open(ctx, options)
	if err != nil {
		return holders{}, err
	}
	keys, err := OpenKeyring(ctx, c.Keys, o.Log)
	if err != nil {
		_ = db.Close()
		return holders{}, err
	}
	return holders{db: db, keys: keys}, nil
}

// checks are what must answer before the server takes requests.
func (h holders) checks() []check {
	return []check{{"database", h.db.Ping}, {"keyring", h.keys.Ready}}
}

// rules is floor 3.
type rules struct {
	fleet        *fleet.Service
	activation   *activation.Service
	provisioning *provisioning.Service
	claim        *claim.Service
	auth         *auth.Service
	refusal      *refusal.Service
}

func newRules(ctx context.Context, h holders, refusals *refusal.Recorder, o Options, metrics prometheus.Registerer) (rules, error) {
	r := rules{
		fleet:        fleet.New(h.db, h.keys, fleet.Options{Log: o.Log, Now: o.Now}),
		provisioning: provisioning.New(h.db, h.db, h.keys),
		claim:        claim.New(h.db, h.db, h.keys, claim.Options{Now: o.Now}),
		auth:         auth.New(h.db, o.Now),
		refusal:      refusal.New(h.db, refusals),
	}
	if err := r.fleet.Directory().Reload(ctx); err != nil {
		return rules{}, err
	}
	alarms := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "joinery_counter_alarms_total",
		Help: "Accepted requests after which less than a tenth of a counter was left, by counter.",
	}, []string{"counter"})
	for _, c := range []prometheus.Collector{alarms, refusalMetrics{refusals}} {
		if err := metrics.Register(c); err != nil {
			return rules{}, fmt.Errorf("metrics: %w", err)
		}
	}
	r.activation = activation.New(h.db, h.keys, r.fleet.Directory(), activation.Options{
		Now:   o.Now,
		Log:   o.Log,
		Alarm: func(counter string) { alarms.WithLabelValues(counter).Inc() },
	})
	return r, nil
}

// newInterop makes the door for networks.
func newInterop(c config.Config, r rules, refusals interop.Recorder, cert *certificate, o Options, metrics prometheus.Registerer) (*interop.Server, error) {
	return interop.New(interop.Options{
		Peers: r.fleet.Directory(), Joins: r.activation, Certificate: cert.get, Refusals: refusals,
		Log: o.Log, Metrics: metrics, Now: o.Now,
		MaxBody:        c.Limits.BodyBytes,
		MaxConnections: c.Limits.Connections,
		RequestTimeout: c.Limits.RequestTimeout,
		IdleTimeout:    c.Limits.IdleTimeout,
		AnswerTimeout:  c.Limits.AnswerTimeout,
	})
}

// newAPI makes the door for people and scripts.
func newAPI(h holders, r rules, log *slog.Logger, metrics prometheus.Registerer) (*api.Server, error) {
	return api.New(api.Options{
		Version: Version(), Log: log, Metrics: metrics,
		Services: api.Services{
			System: system{h}, Keys: r.auth,
			Organisations: r.fleet, Ranges: r.fleet, Signers: r.fleet, Peers: r.fleet, KEKs: r.fleet,
			Devices: r.fleet, Nonces: r.fleet, Ownership: r.claim, Imports: r.provisioning, Audit: r.fleet,
			Refusals: r.refusal,
		},
	})
}

// system is what the API tells about the server itself.
type system struct{ holders }

// Ready implements api.System.
func (s system) Ready(ctx context.Context) error {
	for _, c := range s.checks() {
		if err := c.run(ctx); err != nil {
			return joinery.WrapError(joinery.CodeUnavailable, err, "the %s does not answer", c.name)
		}
	}
	return nil
}

// TransportKey implements api.System.
func (s system) TransportKey() seal.PublicKey { return s.keys.TransportKey() }

// Masters implements api.System.
func (s system) Masters() []client.MasterKey {
	masters := s.keys.Masters()
	list := make([]client.MasterKey, len(masters))
	for i, m := range masters {
		list[i] = client.MasterKey{Name: m.Name, Profile: m.Profile, KCV: m.KCV}
	}
	return list
}
