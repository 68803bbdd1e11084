package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"joinery"
	"joinery/internal/config"
	"joinery/internal/keyring"
	"joinery/internal/keyring/manual"
	"joinery/internal/keyring/soft"
	"joinery/internal/keyring/worker"
	"joinery/internal/store"

	"github.com/prometheus/client_golang/prometheus"
)

// OpenKeyring opens the keys that c names, and reports how they are kept.
func OpenKeyring(ctx context.Context, c config.Config, log *slog.Logger) (keyring.Verbs, error) {
	return openKeyring(ctx, c, log, false)
}

// openKeyring with locked gives a keyring also where a token refuses the PIN: it
// then waits for an operator.
func openKeyring(ctx context.Context, c config.Config, log *slog.Logger, locked bool) (keyring.Verbs, error) {
	if c.Keys.Backend == config.BackendPKCS11 {
		o, err := workerOptions(c, log)
		if err != nil {
			return nil, err
		}
		o.Locked = locked
		keys, err := worker.Start(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("hardware token %q: %w", c.Keys.PKCS11.Token, err)
		}
		return keys, nil
	}
	if c.Keys.Manual {
		if !locked {
			return nil, errors.New("the key file is opened by hand on the running server (keys.manual), and this program opens it by itself: " +
				"name what opens it in a configuration for this program")
		}
		return manual.New(func(ctx context.Context, text []byte) (keyring.Token, error) {
			token, err := soft.OpenWith(ctx, c.Keys.File, text)
			if err != nil {
				return nil, err // an interface that holds nil is not nil
			}
			tellOpened(log, token)
			return token, nil
		}), nil
	}
	token, err := soft.Open(ctx, soft.Options{KeyFile: c.Keys.File, Unlock: Unlock(c.Keys)})
	if err != nil {
		return nil, err
	}
	tellOpened(log, token)
	return keyring.New(token), nil
}

func tellOpened(log *slog.Logger, token *soft.Token) {
	log.Info("key file opened", "backend", "soft", "level", "in-memory",
		"protection", token.Protection().String(), "masters", len(token.Masters()))
}

// workerProgram is the name of the program that opens hardware tokens.
const workerProgram = "joinery-hsm"

// workerOptions says which worker to start.
func workerOptions(c config.Config, log *slog.Logger) (worker.Options, error) {
	program, err := hsmProgram(c)
	if err != nil {
		return worker.Options{}, err
	}
	p := c.Keys.PKCS11
	told, err := json.Marshal(worker.TokenConfig{
		Module: p.Module, InitArgs: p.InitArgs, Token: p.Token, PINFile: p.PINFile, PINCredential: p.PINCredential,
		Sessions: p.Sessions, PerMinute: p.DevicePerMinute, AuditFile: p.AuditFile, MinimumLevel: p.MinimumLevel, LogLevel: c.Log.Level, LogFormat: c.Log.Format,
	})
	if err != nil {
		return worker.Options{}, err
	}
	return worker.Options{Program: program, Config: told, MaxResident: int64(p.RecycleRSS) << 20, Log: log}, nil
}

// Unlock says how the key file of c is opened.
func Unlock(c config.Keys) soft.Unlock {
	return soft.Unlock{PassphraseFile: c.PassphraseFile, IdentityFile: c.IdentityFile, Credential: c.Credential, Command: c.Command}
}

// inWorker gives the keys of h where they are in a process of their own, else nil.
func inWorker(keys keyring.Verbs) *worker.Keys {
	w, _ := keys.(*worker.Keys)
	return w
}

// noteMasters lets the database remember which master keys it is served with,
// and refuses others of the same names, also when the keys are opened anew.
func (h holders) noteMasters(ctx context.Context) error {
	note := func(ctx context.Context, list []keyring.Master) error { return noteMasters(ctx, h.db, list) }
	if w := inWorker(h.keys); w != nil {
		return w.Admit(ctx, note)
	}
	if byHand, ok := h.keys.(*manual.Keys); ok {
		return byHand.Admit(ctx, note)
	}
	return note(ctx, h.keys.Masters())
}

func noteMasters(ctx context.Context, db *store.DB, list []keyring.Master) error {
	var masters []store.Master
	for _, m := range list {
		masters = append(masters, store.Master{Name: m.Name, Profile: m.Profile, KCV: m.KCV})
	}
	return db.NoteMasters(ctx, masters...)
}

// noteKeys has the custody log told under which generations of its keys this
// server serves, where they are other ones than before. Keys that are sealed are
// none.
func noteKeys(ctx context.Context, db *store.DB, g keyring.Generations) error {
	if len(g.JoinKEK) == 0 {
		return nil
	}
	var joinKEKs []string
	for _, n := range g.JoinKEK {
		joinKEKs = append(joinKEKs, strconv.FormatUint(uint64(n), 10))
	}
	detail := map[string]string{
		"join_kek": strings.Join(joinKEKs, " "), "custody": strconv.FormatUint(uint64(g.Custody), 10), "transport": strings.Join(g.Transport, " "),
	}
	return db.NoteKeys(ctx, detail)
}

// keysHint says what is wrong with the keys, for whoever asks, where waiting does
// not help; else it is empty.
func (h holders) keysHint() string {
	if w := inWorker(h.keys); w != nil && w.Refused() != nil {
		return "the hardware token refused the PIN, which is not tried again: put the right one in place, then send SIGHUP to joinery"
	}
	if sealed(h.keys) {
		return "the keys are sealed, and joins are refused: an operator has to run joinctl unseal on this machine"
	}
	return ""
}

// sealed tells whether an operator has to open the keys first.
func sealed(keys keyring.Verbs) bool {
	byHand, ok := keys.(*manual.Keys)
	return ok && byHand.Sealed()
}

// closedKeys is why keys are not open and no waiting helps: a token refused the
// PIN, or an operator has to open them.
func closedKeys(keys keyring.Verbs) error {
	if w := inWorker(keys); w != nil {
		return w.Refused()
	}
	if sealed(keys) {
		return fmt.Errorf("%w: a server that starts now is sealed (keys.manual), and would end the joins of the one that runs; "+
			"stop that one, start anew and run joinctl unseal", manual.ErrSealed)
	}
	return nil
}

// Unseal implements api.Unsealer.
func (s system) Unseal(ctx context.Context, text []byte) error {
	byHand, ok := s.keys.(*manual.Keys)
	if !ok {
		return joinery.Errorf(joinery.CodeConflict, "this server opens its keys by itself: keys.manual is not set")
	}
	switch err := byHand.Unseal(ctx, text); {
	case errors.Is(err, soft.ErrPassphrase), errors.Is(err, soft.ErrUnlock):
		return joinery.WrapError(joinery.CodeInvalid, err, "that does not open the key file")
	case err != nil:
		return joinery.WrapError(joinery.CodeUnavailable, err, "the keys could not be opened; the server's log says why")
	}
	return noteKeys(ctx, s.db, s.keys.Generations())
}

// rereadKeys takes in what came into the key file or the token, or left it, since it
// was opened: new generations of storage keys and new master keys. With a key file
// joins wait for the moment of the change; with a token another process takes the
// place of the one that has it. Where that does not open, the keys stay as they were.
func (p *Program) rereadKeys(ctx context.Context) {
	p.rereading.Lock()
	defer p.rereading.Unlock()
	if w := inWorker(p.keys); w != nil {
		p.reopenToken(ctx, w)
		return
	}
	keys, is := p.keys.(*keyring.Keyring)
	if !is {
		if _, byHand := p.keys.(*manual.Keys); byHand {
			p.log.Info("the keys stay as they are: they were opened by hand; joinctl unseal has them read anew")
		}
		return
	}
	if err := p.renew(ctx, keys); err != nil && !errors.Is(err, keyring.ErrClosed) {
		p.log.Error("the keys stay as they were", "error", err)
		return
	}
	g := keys.Generations()
	p.log.Info("key file read anew", "join_kek", g.Newest(), "custody", g.Custody, "masters", len(keys.Masters()))
}

func (p *Program) renew(ctx context.Context, keys *keyring.Keyring) error {
	token, err := soft.Open(ctx, soft.Options{KeyFile: p.config.Keys.File, Unlock: Unlock(p.config.Keys)})
	if err != nil {
		return err
	}
	if o := p.health.Load(); o != nil && o.noteMasters != nil { // else a successor has the database
		err = o.noteMasters(ctx, token.Masters())
		if err == nil {
			err = o.noteKeys(ctx, token.Generations())
		}
	}
	if err == nil {
		err = keys.Renew(ctx, token)
	}
	if err != nil {
		return errors.Join(err, token.Close())
	}
	return nil
}

// reopenToken has the token opened anew, also where it refused the PIN before.
func (p *Program) reopenToken(ctx context.Context, w *worker.Keys) {
	if err := w.Reopen(ctx); err != nil {
		if !errors.Is(err, keyring.ErrClosed) {
			p.log.Error("the keys stay as they were", "error", err)
		}
		return
	}
	g := w.Generations()
	if o := p.health.Load(); o != nil && o.noteKeys != nil {
		if err := o.noteKeys(ctx, g); err != nil {
			p.log.Error("the custody log does not tell of the keys with which this server serves now; send SIGHUP again", "error", err)
		}
	}
	p.log.Info("token opened anew", "join_kek", g.Newest(), "custody", g.Custody, "masters", len(w.Masters()))
}

// replaceKeys puts another process in the place of the one that has the keys.
func (p *Program) replaceKeys(ctx context.Context) {
	w := inWorker(p.keys)
	if w == nil {
		p.log.Warn("asked to replace the process that has the keys, but this one has them itself")
		return
	}
	if err := w.Replace(ctx); err != nil && !errors.Is(err, keyring.ErrClosed) {
		p.log.Error("the process that has the keys was not replaced", "error", err)
	}
}

// keyMetrics tells how well keys are kept, and how the process does that has
// them, at each scrape. Nothing in it is about a device.
type keyMetrics struct{ keys keyring.Verbs }

var (
	custodyLevel = prometheus.NewDesc("joinery_custody_level",
		"How keys of one origin and derivation profile are kept: 3 in-token, 2 ecb-oracle, 1 in-memory, 0 not served.", []string{"origin", "profile"}, nil)
	workerUp       = prometheus.NewDesc("joinery_hsm_up", "1 while a process with the hardware token serves, else 0.", nil, nil)
	workerRefused  = prometheus.NewDesc("joinery_hsm_pin_refused", "1 where the token refused the PIN: nothing is tried until SIGHUP.", nil, nil)
	workerRestarts = prometheus.NewDesc("joinery_hsm_restarts_total", "Processes with the hardware token that ended by themselves.", nil, nil)
	workerReplaced = prometheus.NewDesc("joinery_hsm_replaced_total",
		"Processes with the hardware token that were replaced, by why: 'memory', 'token' (it did not answer), 'ordered'.", []string{"why"}, nil)
	workerResident = prometheus.NewDesc("joinery_hsm_resident_bytes", "Memory of the process with the hardware token.", nil, nil)
	verbFailures   = prometheus.NewDesc("joinery_hsm_failures_total", "Operations that failed because the token could not be reached, by verb.", []string{"verb"}, nil)
	verbLimits     = prometheus.NewDesc("joinery_hsm_limited_total", "Operations that the process with the hardware token refused, since the device had all that it may have in a minute, by verb.", []string{"verb"}, nil)
	verbTimes      = prometheus.NewDesc("joinery_hsm_duration_seconds", "Time of operations in the process with the hardware token, by verb.", []string{"verb"}, nil)
)

// Describe implements prometheus.Collector.
func (m keyMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{custodyLevel, workerUp, workerRefused, workerRestarts, workerReplaced, workerResident, verbFailures, verbLimits, verbTimes} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m keyMetrics) Collect(to chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	for _, c := range m.keys.Custody() {
		level := float64(c.Level)
		if !c.Served {
			level = 0
		}
		send(custodyLevel, prometheus.GaugeValue, level, c.Origin.String(), c.Profile)
	}
	w := inWorker(m.keys)
	if w == nil {
		return
	}
	s := w.Stats()
	send(workerUp, prometheus.GaugeValue, truth(s.Serving))
	send(workerRefused, prometheus.GaugeValue, truth(s.Refused))
	send(workerRestarts, prometheus.CounterValue, float64(s.Restarts))
	for why, n := range s.Replaced {
		send(workerReplaced, prometheus.CounterValue, float64(n), why)
	}
	send(workerResident, prometheus.GaugeValue, float64(s.Resident))
	for verb, v := range s.Verbs {
		send(verbFailures, prometheus.CounterValue, float64(v.Failed), verb)
		send(verbLimits, prometheus.CounterValue, float64(v.Limited), verb)
		within := map[float64]uint64{}
		for i, bound := range worker.Bounds {
			within[bound.Seconds()] = v.Within[i]
		}
		to <- prometheus.MustNewConstHistogram(verbTimes, v.Count, v.Sum.Seconds(), within, verb)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
