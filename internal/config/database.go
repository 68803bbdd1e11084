package config

import (
	"net"
	"net/url"
	"strings"
)

// Check wants one database, and no password in its URL.
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
	if err := noPassword("database.url", d.URL); err != nil {
		return err
	}
	return checkURL("database.url", d.URL)
}

// checkURL never repeats the URL: somebody may have put a password into it.
func checkURL(name, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return wrong(name, "want a URL such as postgres://joinery@db.example.com/joinery?sslmode=verify-full")
	}
	query := u.Query()
	if !query.Has("sslmode") && !onlyLocal(u, query) {
		return wrong(name, "say how the connection is protected: add sslmode=verify-full, and sslrootcert=… with an authority of your own")
	}
	return nil
}

// noPassword refuses a URL with a password in it.
func noPassword(name, text string) error {
	u, err := url.Parse(text)
	if err != nil {
		return nil // checkURL says so
	}
	if _, given := u.User.Password(); given || u.Query().Has("password") {
		return wrong(name, "there is a password in it: take it out, and put it into a file that password_file names; "+
			"others may have read it here, so change it")
	}
	return nil
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
