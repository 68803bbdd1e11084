package config

import (
	"errors"
	"net/url"
	"strings"

	"joinery/auditlog"
)

// LogWitness is a witness of the custody log.
type LogWitness struct{ URL, Key string }

// List gives Witnesses; Check says whether they can be read.
func (a Audit) List() (list []LogWitness) {
	for text := range strings.SplitSeq(a.Witnesses, ",") {
		if f := strings.Fields(text); len(f) > 0 {
			w := LogWitness{URL: f[0]}
			if len(f) == 2 {
				w.Key = f[1]
			}
			list = append(list, w)
		}
	}
	return list
}

func (a Audit) check() error {
	var found []error
	if strings.ContainsAny(a.Origin, " \t\n+") || len(a.Origin) > 100 {
		found = append(found, wrong("audit.origin", "want a name without blanks and plus signs, of at most 100 characters"))
	}
	for _, w := range a.List() {
		if u, err := url.Parse(w.URL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			found = append(found, wrong("audit.witnesses", "%q is no address of a witness: want https://HOST/PATH KEY, with commas between", w.URL))
		}
		if _, err := auditlog.NewWitness(w.Key); err != nil {
			found = append(found, wrong("audit.witnesses", "%s: %w", w.URL, err))
		}
	}
	return errors.Join(found...)
}
