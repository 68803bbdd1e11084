package config

import (
	"strings"
	"testing"
)

func TestDatabase(t *testing.T) {
	const secret = "hunter2"
	for _, c := range []struct {
		name string
		d    Database
		want string // empty: in order
	}{
		{"file", Database{Path: "joinery.db"}, ""},
		{"socket", Database{URL: "postgres:///joinery?host=/run/postgresql"}, ""},
		{"socket by default", Database{URL: "postgres:///joinery"}, ""},
		{"loopback", Database{URL: "postgresql://joinery@127.0.0.1:5433/joinery", PasswordFile: "pw"}, ""},
		{"network", Database{URL: "postgres://joinery@db.example.com/joinery?sslmode=verify-full"}, ""},
		{"none", Database{}, "database.path: is missing"},
		{"both", Database{Path: "joinery.db", URL: "postgres:///joinery"}, "keep the one that is meant"},
		{"password of a file", Database{Path: "joinery.db", PasswordFile: "pw"}, "database.password_file: is for url"},
		{"failover of a file", Database{Path: "joinery.db", TrustFailover: true}, "database.trust_failover: is for url"},
		{"another scheme", Database{URL: "mysql://db/joinery"}, "want a URL such as postgres://"},
		{"no URL", Database{URL: "host=db password=" + secret}, "want a URL such as postgres://"},
		{"no URL at all", Database{URL: "postgres://joinery:" + secret + "@db:x/y"}, "want a URL such as postgres://"},
		{"password", Database{URL: "postgres://joinery:" + secret + "@db/joinery?sslmode=verify-full"}, "there is a password in it"},
		{"password as a setting", Database{URL: "postgres://db/joinery?sslmode=require&password=" + secret}, "there is a password in it"},
		{"password of a key as a setting", Database{URL: "postgres://db/joinery?sslmode=require&sslpassword=" + secret}, "there is a password in it"},
		{"escaped wrongly", Database{URL: "postgres://u:%zz" + secret + "@db/joinery"}, "want a URL such as postgres://"},
		{"with a slash", Database{URL: "postgres://u:1/" + secret + "@db/joinery"}, "want a URL such as postgres://"},
		{"with a number sign", Database{URL: "postgres://u:1#" + secret + "@db/joinery"}, "want a URL such as postgres://"},
		{"with a question mark", Database{URL: "postgres://u:1?" + secret + "@db/joinery"}, "not known here"},
		{"with a semicolon", Database{URL: "postgres://db/joinery?sslmode=require&password=1;" + secret}, "and ; as %3B"},
		{"no slashes", Database{URL: "postgres:u:" + secret + "@db"}, "want a URL such as postgres://"},
		{"unknown setting", Database{URL: "postgres:///joinery?pass=" + secret}, "not known here"},
		{"another machine's service", Database{URL: "postgres:///joinery?service=far"}, "not known here"},
		{"schema", Database{URL: "postgres:///joinery?host=/run/postgresql&search_path=joinery"}, ""},
		{"in the clear unsaid", Database{URL: "postgres://db.example.com/joinery"}, "sslmode=verify-full"},
		{"one host of two is far", Database{URL: "postgres://localhost,db2/joinery"}, "sslmode=verify-full"},
		{"host as a setting", Database{URL: "postgres:///joinery?host=db2"}, "sslmode=verify-full"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.d.Check()
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the password is repeated: %v", err)
			}
			if !strings.Contains(c.d.URL, secret) {
				return
			}
			if _, err := Parse([]byte("database:\n  url: '" + c.d.URL + "'\n")); err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("it is read, and so printed: %v", err)
			}
			var out strings.Builder
			if err := Print(&out, Config{Database: c.d}); err == nil || strings.Contains(err.Error()+out.String()+c.d.Name(), secret) {
				t.Errorf("it is printed: %v", err)
			}
		})
	}
}

// A URL takes the place of the default path, not that of a path that was given.
func TestURLInFile(t *testing.T) {
	c, err := Parse([]byte("database:\n  url: postgres:///joinery\n"))
	if err != nil || c.Database.Path != "" {
		t.Errorf("path %q, %v", c.Database.Path, err)
	}
	c, err = Parse([]byte("database:\n  url: postgres:///joinery\n  path: joinery.db\n"))
	if err != nil || c.Database.Path != "joinery.db" {
		t.Errorf("path %q, %v", c.Database.Path, err)
	}
	// What is read may be printed, so a password is refused while reading.
	_, err = Parse([]byte("database:\n  url: postgres://joinery:hunter2@db/joinery\n"))
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}
