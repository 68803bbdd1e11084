package api

import (
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"

	"joinery"

	"github.com/danielgtaylor/huma/v2"
)

// What one caller may ask, unless Options say otherwise: a script that reads a
// million devices needs 2,000 requests.
const (
	defaultRate = 6000 // requests
	rateWindow  = time.Minute
	policyName  = "caller"
)

// rates bounds the requests of each caller: each has a bucket of as many
// requests as a window has, which fills evenly.
type rates struct {
	mu      sync.Mutex
	quota   float64
	now     func() time.Time
	buckets map[string]*bucket
}

type bucket struct {
	left float64
	at   time.Time // when left was that
}

// standing is how a caller stands behind a request.
type standing struct {
	left  int
	full  time.Duration // until the whole quota is there again
	again time.Duration // until what was asked for is; 0: it is
}

// maxBuckets is when full buckets are thrown away: a caller without one has
// its whole quota.
const maxBuckets = 10_000

func newRates(perMinute int) *rates {
	if perMinute == 0 {
		perMinute = defaultRate
	}
	return &rates{quota: float64(perMinute), now: time.Now, buckets: map[string]*bucket{}}
}

// take takes n requests of name's quota, or none of them.
func (r *rates) take(name string, n int) standing {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	b := r.buckets[name]
	if b == nil {
		r.throwAway(now)
		b = &bucket{left: r.quota, at: now}
		r.buckets[name] = b
	}
	b.fill(now, r.quota)
	var s standing
	if want := min(float64(n), r.quota); b.left >= want {
		b.left -= want
	} else {
		s.again = r.wait(want - b.left)
	}
	s.left, s.full = int(b.left), r.wait(r.quota-b.left)
	return s
}

// fill adds what came since the bucket was last looked at. A clock that went back
// adds nothing.
func (b *bucket) fill(now time.Time, quota float64) {
	b.left = min(quota, b.left+quota*float64(max(0, now.Sub(b.at)))/float64(rateWindow))
	b.at = now
}

// wait is how long it takes for so many requests to come.
func (r *rates) wait(requests float64) time.Duration {
	return time.Duration(requests / r.quota * float64(rateWindow))
}

func (r *rates) throwAway(now time.Time) {
	if len(r.buckets) < maxBuckets {
		return
	}
	for name, b := range r.buckets {
		if b.fill(now, r.quota); b.left == r.quota {
			delete(r.buckets, name)
		}
	}
}

// seconds rounds up, so that who waits that long does not come too early.
func seconds(d time.Duration) int { return int(math.Ceil(d.Seconds())) }

// bucketOf names the bucket of a caller: a person's, whatever they sign in or ask
// with; else their organisation's, or the operator's. Keys have none of their own,
// so that who makes more of them may not ask more.
func bucketOf(caller joinery.Caller) string {
	switch {
	case caller.Person != 0:
		return "person " + caller.Person.String()
	case caller.Operator:
		return "operator"
	case caller.Org != 0:
		return "organisation " + caller.Org.String()
	}
	return caller.Name // nobody: who begins to sign in
}

// throttle bounds how often one caller asks, and says in each answer how it
// stands (draft-ietf-httpapi-ratelimit-headers). The operator socket has no
// bound.
func (s *Server) throttle(ctx huma.Context, next func(huma.Context)) {
	caller, _ := ctx.Context().Value(callerKey{}).(joinery.Caller)
	_, socket := ctx.Context().Value(connectionKey{}).(connection)
	if s.rates.quota < 0 || socket && ctx.Header("Authorization") == "" {
		next(ctx)
		return
	}
	if err := s.spend(ctx.SetHeader, bucketOf(caller), 1); err != nil {
		s.refuse(ctx, err)
		return
	}
	next(ctx)
}

func (s *Server) tooMany(again time.Duration) error {
	return joinery.Later(joinery.Errorf(joinery.CodeRateLimited,
		"more than %d requests a minute came from you, by whatever key or session; wait as long as Retry-After says", int(s.rates.quota)), again)
}

// SpendCaller takes one request of a caller's quota, for doors that stand beside
// this one's routes: what a caller asks of them counts for the same, and their
// answers' headers say how it stands. CodeRateLimited where nothing is left. The
// operator socket has no bound.
func (s *Server) SpendCaller(answer http.Header, caller joinery.Caller) error {
	if caller.Socket {
		return nil
	}
	return s.spend(answer.Set, bucketOf(caller), 1)
}

// SpendPeer takes requests of a peer's quota, which is as large as a caller's.
func (s *Server) SpendPeer(answer http.Header, peer joinery.PeerID, requests int) error {
	return s.spend(answer.Set, "peer "+peer.String(), requests)
}

// spend takes requests of name's quota, and sets the headers that say how it stands.
func (s *Server) spend(set func(name, value string), name string, requests int) error {
	if s.rates.quota < 0 {
		return nil
	}
	at := s.rates.take(name, requests)
	set("RateLimit-Policy", fmt.Sprintf(`"%s";q=%d;w=%d`, policyName, int(s.rates.quota), seconds(rateWindow)))
	set("RateLimit", fmt.Sprintf(`"%s";r=%d;t=%d`, policyName, at.left, seconds(at.full)))
	if at.again > 0 {
		return s.tooMany(at.again)
	}
	return nil
}

// retryAfter is how many seconds to wait before asking again, by status, where
// the refusal itself does not say.
func retryAfter(status int, err error) int {
	if after := joinery.RetryAfter(err); after > 0 {
		return seconds(after)
	}
	switch status {
	case http.StatusTooManyRequests:
		return 60
	case http.StatusServiceUnavailable:
		return 5
	}
	return 0
}
