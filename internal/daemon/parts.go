package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/activation"
	"joinery/internal/api"
	"joinery/internal/attest"
	"joinery/internal/auth"
	"joinery/internal/claim"
	"joinery/internal/config"
	"joinery/internal/custodylog"
	"joinery/internal/events"
	"joinery/internal/export"
	"joinery/internal/exportfile"
	"joinery/internal/fleet"
	"joinery/internal/interop"
	"joinery/internal/keyring"
	"joinery/internal/provisioning"
	"joinery/internal/refusal"
	"joinery/internal/rekey"
	"joinery/internal/rotation"
	"joinery/internal/seal"
	"joinery/internal/service"
	"joinery/internal/store"
	"joinery/internal/ttjs"

	"github.com/prometheus/client_golang/prometheus"
)

// DatabaseOptions says which database c names. What must outlive the database
// stands beside the key file.
func DatabaseOptions(c config.Config) store.Options {
	db := c.Database
	return store.Options{
		Path: db.Path, URL: db.URL, PasswordFile: db.PasswordFile, TrustFailover: db.TrustFailover,
		Witnesses: []string{filepath.Dir(c.Keys.File)},
	}
}

// openDatabase opens the store. With wait it waits for the lock of the database,
// where there is one, until ctx ends, instead of failing while another server
// holds it.
func (p *Program) openDatabase(ctx context.Context, wait bool) (*store.DB, error) {
	options := DatabaseOptions(p.config)
	options.Successor, options.Logger = wait, p.log
	if p.migrate {
		if p.predecessor != nil {
			defer p.predecessor.Working()()
		}
		from, to, err := store.Migrate(ctx, options)
		if err != nil {
			return nil, err
		}
		if from != to {
			p.log.Info("database migrated", "from", from, "to", to)
		}
	}
	return store.Open(ctx, options)
}

// exclusive tells whether one server at a time holds the database.
func exclusive(c config.Database) bool { return c.URL == "" }

// databaseName names the database of c, so that two servers can tell whether
// they mean the same one. It tells nobody anything else.
func databaseName(c config.Database) string {
	name := "postgres:" + c.URL
	if exclusive(c) {
		path := c.Path
		if target, err := filepath.EvalSymlinks(path); err == nil {
			path = target
		}
		name = "sqlite:" + path
	}
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// holders is floor 2: state and keys.
type holders struct {
	db   *store.DB
	keys keyring.Verbs
}

// Checks that others ask for by name.
const (
	checkDatabase = "database"
	checkKeyring  = "keyring"
	checkFence    = "fence" // fails while joins are fenced off
)

// checks are what must answer before the server takes requests.
func (h holders) checks() []check {
	return []check{{checkDatabase, h.db.Ping}, {checkKeyring, h.keys.Ready}, {checkFence, h.answersJoins}}
}

func (h holders) answersJoins(context.Context) error { return h.db.AnswersJoins() }

// rules is floor 3.
type rules struct {
	fleet        *fleet.Service
	activation   *activation.Service
	provisioning *provisioning.Service
	claim        *claim.Service
	networks     *claim.Networks
	auth         *auth.Service
	people       *auth.People
	signIn       *auth.SignIn // nil where nobody signs in
	refusal      *refusal.Service
	events       *events.Service
	rotation     *rotation.Service
	service      *service.Service
	export       *export.Service
	custody      *custodylog.Service
	rekey        *rekey.Service
	attest       *attest.Service
}

func newRules(ctx context.Context, c config.Config, h holders, refusals *refusal.Recorder, log *slog.Logger, now func() time.Time, metrics prometheus.Registerer) (rules, error) {
	r := rules{
		fleet:        fleet.New(h.db, h.keys, fleet.Options{Log: log, Now: now}),
		provisioning: provisioning.New(h.db, h.db, h.keys),
		auth:         auth.New(h.db, now),
		people:       auth.NewPeople(h.db, now),
		refusal:      refusal.New(h.db, refusals),
		rotation:     rotation.New(h.db, h.keys, now),
		export: export.New(h.db, export.Options{Server: serverName(c), Now: now, Log: log, Hold: h.db.AnswersJoins,
			Signers: func() []exportfile.Signer { return h.keys.Generations().Exports }}),
	}
	r.networks = claim.NewNetworks(h.db, h.keys, r.fleet, claim.NetworkOptions{Now: now})
	var err error
	r.attest, err = attest.Start(ctx, h.db, attest.Options{Now: now, Log: log, Verifier: serverName(c), Hold: func() error {
		if err := h.db.AnswersJoins(); err != nil || r.service.Doubt() == "" {
			return err
		}
		return errors.New("the clock is in doubt")
	}})
	if err != nil {
		return rules{}, err
	}
	r.claim = claim.New(h.db, h.db, h.keys, claim.Options{Now: now, Attested: r.attest})
	if r.signIn, err = newSignIn(c.SignIn, h, log, now); err != nil {
		return rules{}, err
	}
	if r.custody, err = newCustody(c.Audit, h, log, now); err != nil {
		return rules{}, err
	}
	if r.events, err = newEvents(c.Webhooks, h, log, now); err != nil {
		return rules{}, err
	}
	if err := r.fleet.Directory().Reload(ctx); err != nil {
		return rules{}, err
	}
	if err := errors.Join(r.claim.Recall(ctx), r.networks.Recall(ctx)); err != nil {
		return rules{}, err
	}
	if r.service, err = service.Start(ctx, h.db, service.Options{Now: now, Log: log, Hold: h.db.AnswersJoins}); err != nil {
		return rules{}, err
	}
	r.fleet.Follow()
	alarms := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "joinery_counter_alarms_total",
		Help: "Accepted requests after which less than a tenth of a counter was left, by counter.",
	}, []string{"counter"})
	fenced := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "joinery_fenced",
		Help: "1 while joins are refused because the database may be older than the joins it answered, else 0.",
	}, func() float64 {
		if h.db.Fence().Up() {
			return 1
		}
		return 0
	})
	doubted := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "joinery_clock_doubted",
		Help: "1 while no service lapses because the clock stepped by more than a day, until the operator confirms it, else 0.",
	}, func() float64 {
		if r.service.Doubt() != "" {
			return 1
		}
		return 0
	})
	for _, c := range []prometheus.Collector{alarms, fenced, doubted, refusalMetrics{refusals}, eventMetrics{r.events}, keyMetrics{h.keys}, logMetrics{r.custody, now}} {
		if err := metrics.Register(c); err != nil {
			return rules{}, fmt.Errorf("metrics: %w", err)
		}
	}
	r.rekey = rekey.New(h.db, h.keys, r.export, r.fleet.Directory().ServesJoinEUI, log, now)
	r.activation = activation.New(h.db, h.keys, r.fleet.Directory(), activation.Options{
		Now:      now,
		Log:      log,
		Fence:    h.db.AnswersJoins,
		Terms:    r.service,
		Fetched:  custodylog.NewRecorder(h.db).Record,
		Rekeying: h.db,
		Attested: r.attest,
		Alarm:    func(counter string) { alarms.WithLabelValues(counter).Inc() },
	})
	return r, nil
}

// newCustody makes the rules of the custody log.
func newCustody(c config.Audit, h holders, log *slog.Logger, now func() time.Time) (*custodylog.Service, error) {
	o := custodylog.Options{Origin: c.Origin, Log: log, Now: now, Hold: h.db.AnswersJoins}
	if o.Origin == "" {
		o.Origin = h.db.LogOrigin()
	}
	for _, w := range c.List() {
		o.Witnesses = append(o.Witnesses, custodylog.Witness{URL: w.URL, Key: w.Key})
	}
	return custodylog.New(h.db, h.keys, o)
}

// settling is how long after a start those who waited in the kernel's queue may
// come all at once.
const settling = 5 * time.Second

// newInterop makes the door for networks.
func newInterop(c config.Config, r rules, refusals interop.Recorder, cert *certificate, gate interop.Gate, log *slog.Logger, now func() time.Time, metrics prometheus.Registerer) (*interop.Server, error) {
	return interop.New(interop.Options{
		Peers: r.fleet.Directory(), Joins: r.activation, Certificate: cert.get, Refusals: refusals, Gate: gate,
		Log: log, Metrics: metrics, Now: now, Settling: settling,
		MaxBody:        c.Limits.BodyBytes,
		MaxConnections: c.Limits.Connections,
		RequestTimeout: c.Limits.RequestTimeout,
		IdleTimeout:    c.Limits.IdleTimeout,
		AnswerTimeout:  c.Limits.AnswerTimeout,
	})
}

// newAPI makes the door for people and scripts, without services yet.
func newAPI(c config.API, around func(http.Handler) http.Handler, log *slog.Logger, metrics prometheus.Registerer) (*api.Server, error) {
	return api.New(api.Options{Version: Version(), Log: log, Metrics: metrics, Around: around, TrustedProxies: c.Proxies()})
}

func services(h holders, r rules, attempts api.Attempts, v2, handover http.Handler) api.Services {
	s := api.Services{
		System: system{h}, Keys: r.auth, People: r.people,
		Organisations: r.fleet, Ranges: r.fleet, Signers: r.fleet, Peers: r.fleet, KEKs: r.fleet,
		Devices: r.fleet, Nonces: r.fleet, Ownership: r.claim, Disputes: r.claim, Imports: r.provisioning, Audit: r.fleet,
		Refusals: r.refusal, Events: r.events, Rotation: r.rotation, Service: r.service, Exports: r.export, CustodyLog: r.custody,
		Rekeying: r.rekey, RekeyApprovals: r.rekey, RekeyBatches: r.rekey, RekeyFiles: r.rekey, JoinServers: r.rekey, Arrivals: r.rekey,
		Attestations: r.attest, Attempts: attempts, Answers: h.db, V2: v2, Handover: handover, Unsealer: system{h},
	}
	if r.signIn != nil { // an interface that holds nil is not nil
		s.SignIn = r.signIn
	}
	return s
}

// newV2 makes the door that clients of The Things Join Server know.
func newV2(h holders, r rules, rates ttjs.Rates, attempts ttjs.Attempts, log *slog.Logger, now func() time.Time) (*ttjs.Server, error) {
	return ttjs.New(ttjs.Options{
		Peers: r.fleet.Directory(), Claims: r.networks, Devices: r.fleet, Tokens: r.claim, Imports: r.provisioning,
		Authenticate: func(ctx context.Context, bearer string) (joinery.Caller, error) {
			return r.auth.Authenticate(ctx, bearer, 0) // these clients know no organisations
		},
		Rates: rates, Attempts: attempts, Local: api.LocalCaller, TransportKey: h.keys.TransportKey, Version: Version(), Log: log, Now: now,
	})
}

// system is what the API tells about the server itself.
type system struct{ holders }

// Ready implements api.System.
func (s system) Ready(ctx context.Context) error {
	if f := s.db.Fence(); f.Up() {
		return joinery.Errorf(joinery.CodeUnavailable, "joins are refused since %s: %s; when no other server answers for these devices, "+
			"stop this one and run joinery restore confirm", f.Since.Format(time.RFC3339), f.Note)
	}
	for _, c := range s.checks() {
		if err := c.run(ctx); err != nil {
			if hint := s.keysHint(); hint != "" && c.name == checkKeyring {
				return joinery.WrapError(joinery.CodeUnavailable, err, "%s", hint)
			}
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

// Custody implements api.System.
func (s system) Custody() (list []client.Custody) {
	for _, c := range s.keys.Custody() {
		list = append(list, client.Custody{
			Origin: c.Origin.String(), Profile: c.Profile, Level: c.Level.String(), Served: c.Served, Why: c.Why,
		})
	}
	return list
}
