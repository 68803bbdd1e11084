package config

import (
	"net"
	"net/url"
	"slices"
	"strings"
)

// Check wants one database, and no password in its URL. It never repeats the
// URL.
func (d Database) Check() error {
	switch {
	case d.URL == "" && d.PasswordFile != "":
		return wrong("database.password_file", "is for url: an SQLite database has no password")
	case d.URL == "" && d.TrustFailover:
		return wrong("database.trust_failover", "is for url: an SQLite database has no failover")
	case d.URL == "":
		return required("database.path", d.Path)
	case d.Path != "":
		return wrong("database", "path and url are set: keep the one that is meant")
	}
	u, err := parseURL("database.url", d.URL)
	if err != nil {
		return err
	}
	if query := u.Query(); !query.Has("sslmode") && !onlyLocal(u, query) {
		return wrong("database.url", "say how the connection is protected: add sslmode=verify-full, and sslrootcert=… with an authority of your own")
	}
	return nil
}

// urlSettings are the settings that a URL may have. A password is none of them,
// nor is what would take the host from elsewhere.
var urlSettings = []string{
	"host", "port", "user", "dbname", "search_path", "options", "application_name", "connect_timeout", "target_session_attrs",
	"sslmode", "sslrootcert", "sslcert", "sslkey", "sslsni", "sslnegotiation", "channel_binding", "passfile", "krbspn", "krbsrvname",
	"min_protocol_version", "max_protocol_version",
}

// parseURL reads a database URL, and refuses every one that holds a password, or
// may: one that is understood only in part may hold it in the rest. It never
// repeats the URL.
func parseURL(name, text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || u.Opaque != "" || strings.Contains(text, "#") ||
		strings.ContainsAny(strings.TrimPrefix(u.EscapedPath(), "/"), "/:@") {
		return nil, wrong(name, "want a URL such as postgres://joinery@db.example.com/joinery?sslmode=verify-full")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, wrong(name, "the settings behind the question mark cannot be read: join them with &, and write %% as %%25 and ; as %%3B")
	}
	_, given := u.User.Password()
	if given || query.Has("password") || query.Has("sslpassword") {
		return nil, wrong(name, "there is a password in it: take it out, and put it into a file that password_file names; "+
			"others may have read it here, so change it")
	}
	for setting := range query {
		if !slices.Contains(urlSettings, setting) { // and it may be a part of a password
			return nil, wrong(name, "it has a setting that is not known here; those are %s", strings.Join(urlSettings, ", "))
		}
	}
	return u, nil
}

// onlyLocal tells whether every host of a URL is this machine. libpq takes hosts
// from the place of the host, as a list, or from the setting host; a path is the
// directory of a Unix socket, and so is no host at all.
func onlyLocal(u *url.URL, query url.Values) bool {
	hosts := strings.Split(u.Host, ",")
	if query.Has("host") {
		hosts = strings.Split(query.Get("host"), ",")
	}
	for _, host := range hosts {
		name := (&url.URL{Host: host}).Hostname()
		ip := net.ParseIP(name)
		if host != "" && !strings.HasPrefix(host, "/") && name != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}
