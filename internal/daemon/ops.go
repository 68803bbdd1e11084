package daemon

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"joinery/internal/keyring"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// checkTimeout bounds one readiness check, so that a stalled part shows as not
// ready within two seconds.
const checkTimeout = 1500 * time.Millisecond

// check is one thing that must answer before the server takes requests.
type check struct {
	name string
	run  func(context.Context) error
}

// ops serves monitoring. It tells names of parts and whether they answer, what an
// operator must do where waiting does not help, and no error text: whoever asks is
// not authenticated.
type ops struct {
	checks   []check
	gatherer prometheus.Gatherer
	// keysHint says what an operator must do about the keys; nil or empty: nothing.
	keysHint func() string
	// noteMasters lets the database know which master keys there are.
	noteMasters func(context.Context, []keyring.Master) error
	// noteKeys lets the custody log know under which generations of keys this server
	// serves.
	noteKeys func(context.Context, keyring.Generations) error

	mu       sync.Mutex
	stopping bool
}

func (o *ops) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.gatherer, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("GET /readyz", o.ready)
	return mux
}

// setStopping makes /readyz say no from now on, so that a balancer sends nothing
// more while requests in flight finish.
func (o *ops) setStopping() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stopping = true
}

func (o *ops) isStopping() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stopping
}

// ready answers 200 when every part answers, else 503; with ?verbose it lists
// the parts.
func (o *ops) ready(w http.ResponseWriter, r *http.Request) {
	failed := o.failed(r.Context())
	stopping := o.isStopping()
	status := http.StatusOK
	if len(failed) > 0 || stopping {
		status = http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	if r.URL.Query().Has("verbose") {
		for _, c := range o.checks {
			fmt.Fprintf(w, "%s %s\n", c.name, verdict(failed[c.name], "failed"))
		}
		fmt.Fprintf(w, "serving %s\n", verdict(stopping, "stopping"))
	}
	if failed[checkFence] {
		fmt.Fprintln(w, "joins are refused until joinery restore confirm; the log says why")
	}
	if failed[checkKeyring] && o.keysHint != nil {
		if hint := o.keysHint(); hint != "" {
			fmt.Fprintln(w, hint)
		}
	}
	fmt.Fprintln(w, verdict(status != http.StatusOK, "not ready"))
}

// failed runs all checks at once and gives those that did not answer well in
// time.
func (o *ops) failed(ctx context.Context) map[string]bool {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	type outcome struct {
		name string
		err  error
	}
	outcomes := make(chan outcome, len(o.checks)) // a late check finds room and ends
	failed := map[string]bool{}
	for _, c := range o.checks {
		failed[c.name] = true
		go func() { outcomes <- outcome{c.name, c.run(ctx)} }()
	}
	for range o.checks {
		select {
		case got := <-outcomes:
			if got.err == nil {
				delete(failed, got.name)
			}
		case <-ctx.Done():
			return failed
		}
	}
	return failed
}

func verdict(bad bool, word string) string {
	if bad {
		return word
	}
	return "ok"
}
