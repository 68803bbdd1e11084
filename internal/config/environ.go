package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// override is a setting that the environment may give in place of the file:
// what differs from one container to the next. It is never a secret.
type override struct {
	variable string
	set      func(*Config, string)
}

var overrides = []override{
	// One place or the other: who names one means no other.
	{"JOINERY_DATABASE_PATH", func(c *Config, v string) { c.Database.Path, c.Database.URL = v, "" }},
	{"JOINERY_DATABASE_URL", func(c *Config, v string) { c.Database.URL, c.Database.Path = v, "" }},
	{"JOINERY_KEYS_FILE", func(c *Config, v string) { c.Keys.File = v }},
	{"JOINERY_INTEROP_ADDRESS", func(c *Config, v string) { c.Interop.Address = v }},
	{"JOINERY_API_SOCKET", func(c *Config, v string) { c.API.Socket = v }},
	{"JOINERY_API_ADDRESS", func(c *Config, v string) { c.API.Address = v }},
	{"JOINERY_API_TLS_ADDRESS", func(c *Config, v string) { c.API.TLS.Address = v }},
	{"JOINERY_OPS_ADDRESS", func(c *Config, v string) { c.Ops.Address = v }},
	{"JOINERY_LOG_LEVEL", func(c *Config, v string) { c.Log.Level = v }},
}

// Variables are the names of all environment variables that override a setting.
func Variables() (names []string) {
	for _, o := range overrides {
		names = append(names, o.variable)
	}
	return names
}

// ours finds variables that mean to override a setting: those named after a
// section, or after the last word of one that is above. Other names with our
// prefix are left to images and scripts.
//
// Kubernetes gives every container variables about services; where one is called
// joinery, or joinery-api, theirs begin like ours. _PORT alone may be somebody's
// wish for a port; theirs is the address of a service.
var (
	ours = regexp.MustCompile(`^JOINERY_((DATABASE|KEYS|INTEROP|API|OPS|LIMITS|WEBHOOKS|LOG)(_.*)?|(.*_)?(PATH|URL|FILE|ADDRESS|SOCKET|LEVEL))$`)

	kubernetes        = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)
	kubernetesPort    = regexp.MustCompile(`_PORT$`)
	kubernetesAddress = regexp.MustCompile(`^(tcp|udp|sctp)://`)
)

// forService tells whether a variable is Kubernetes's.
func forService(name, value string) bool {
	return kubernetes.MatchString(name) || kubernetesPort.MatchString(name) && kubernetesAddress.MatchString(value)
}

// FromEnvironment returns c with what environ, in the form of os.Environ, gives
// in place of the file. An empty variable overrides nothing. One that is named
// like a setting and overrides none is an error: somebody relies on it. No value
// is repeated.
func (c Config) FromEnvironment(environ []string) (Config, error) {
	var errs []error
	var seen []string
	for _, one := range environ {
		name, value, _ := strings.Cut(one, "=")
		if !ours.MatchString(name) || value == "" || forService(name, value) {
			continue
		}
		i := slices.IndexFunc(overrides, func(o override) bool { return o.variable == name })
		if i < 0 {
			errs = append(errs, fmt.Errorf("  $%s overrides no setting%s", name, suggest(name, Variables(), "")))
			continue
		}
		overrides[i].set(&c, value)
		seen = append(seen, name)
	}
	if slices.Contains(seen, "JOINERY_DATABASE_PATH") && slices.Contains(seen, "JOINERY_DATABASE_URL") {
		errs = append(errs, errors.New("  $JOINERY_DATABASE_PATH and $JOINERY_DATABASE_URL are set: keep the one that is meant"))
	}
	if err := errors.Join(errs...); err != nil {
		return Config{}, fmt.Errorf("environment:\n%w", err)
	}
	return c, nil
}
