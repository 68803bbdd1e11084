package api

import (
	"fmt"
	"testing"
	"time"

	"joinery"
)

// TestRates runs a bucket on a clock of the test's own.
func TestRates(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	r := newRates(60) // one a second
	r.now = func() time.Time { return now }
	for n := range 60 {
		if s := r.take("a", 1); s.left != 59-n || s.again != 0 || s.full != time.Duration(n+1)*time.Second {
			t.Fatalf("request %d: %+v", n, s)
		}
	}
	if s := r.take("a", 1); s.again != time.Second || s.left != 0 {
		t.Errorf("one too many: %+v", s)
	}
	if s := r.take("b", 1); s.again != 0 || s.left != 59 {
		t.Errorf("another: %+v", s)
	}
	now = now.Add(500 * time.Millisecond)
	if s := r.take("a", 1); s.again != 500*time.Millisecond {
		t.Errorf("after half a second: %+v", s)
	}
	now = now.Add(10 * time.Second)
	if s := r.take("a", 1); s.again != 0 || s.left != 9 {
		t.Errorf("after ten: %+v", s)
	}
	now = now.Add(-time.Hour)
	if s := r.take("a", 1); s.left != 8 {
		t.Errorf("with a clock that went back: %+v", s)
	}
	now = now.Add(48 * time.Hour)
	if s := r.take("a", 1); s.left != 59 {
		t.Errorf("after two days: %+v", s)
	}
	// Many at once are taken together or not at all; more than there ever are, as all.
	if s := r.take("a", 50); s.left != 9 || s.again != 0 {
		t.Errorf("fifty: %+v", s)
	}
	if s := r.take("a", 50); s.left != 9 || s.again != 41*time.Second {
		t.Errorf("fifty more: %+v", s)
	}
	if s := r.take("c", 1000); s.left != 0 || s.again != 0 {
		t.Errorf("a thousand: %+v", s)
	}
}

// TestRatesForget: credentials that have their whole quota take no memory for
// long.
func TestRatesForget(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	r := newRates(60)
	r.now = func() time.Time { return now }
	for n := range 3 * maxBuckets {
		now = now.Add(2 * time.Second)
		r.take(fmt.Sprint("key ", n), 1)
	}
	if len(r.buckets) > maxBuckets+1 {
		t.Errorf("%d buckets", len(r.buckets))
	}
}

// TestBuckets: whoever makes more keys, or signs in more often, may not ask more.
func TestBuckets(t *testing.T) {
	a, b, ann := joinery.NewOrgID(), joinery.NewOrgID(), joinery.NewPersonID()
	key := func() joinery.Caller { return joinery.Caller{Org: a, Name: "key", Key: joinery.NewAPIKeyID()} }
	with := func(c joinery.Caller, change func(*joinery.Caller)) joinery.Caller { change(&c); return c }
	for name, c := range map[string]struct {
		one, two joinery.Caller
		same     bool
	}{
		"two keys of an organisation":  {key(), key(), true},
		"keys of two":                  {key(), with(key(), func(c *joinery.Caller) { c.Org = b }), false},
		"a person's key and session":   {with(key(), func(c *joinery.Caller) { c.Person = ann }), joinery.Caller{Org: b, Person: ann, Session: 7, Name: "person"}, true},
		"two people":                   {joinery.Caller{Org: a, Person: ann}, joinery.Caller{Org: a, Person: joinery.NewPersonID()}, false},
		"a person and an organisation": {joinery.Caller{Org: a, Person: ann}, key(), false},
		"operator's keys for two":      {joinery.Caller{Operator: true, Org: a, Key: 1}, joinery.Caller{Operator: true, Org: b, Key: 2}, true},
		"the operator, and a tenant":   {joinery.Caller{Operator: true, Org: a}, key(), false},
		"nobody, and the operator":     {joinery.Caller{}, joinery.Caller{Operator: true}, false},
	} {
		if same := bucketOf(c.one) == bucketOf(c.two); same != c.same {
			t.Errorf("%s: %q and %q", name, bucketOf(c.one), bucketOf(c.two))
		}
	}
}
