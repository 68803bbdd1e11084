package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFromEnvironment(t *testing.T) {
	c, err := Default().FromEnvironment([]string{
		"HOME=/root", "JOINERY_CONFIG=/etc/j.yaml", "JOINERY_LOG_LEVEL=debug", "JOINERY_OPS_ADDRESS=0.0.0.0:9000",
		"JOINERY_DATABASE_URL=postgres:///joinery", "JOINERY_API_ADDRESS=", "JOINERY_KEYS_FILE=/keys/server.age",
		// What Kubernetes says of services called joinery and joinery-api.
		"JOINERY_SERVICE_HOST=10.0.0.1", "JOINERY_PORT=tcp://10.0.0.1:8443", "JOINERY_API_SERVICE_PORT_HTTP=8444",
		"JOINERY_API_PORT=tcp://10.0.0.1:8444", "JOINERY_API_PORT_8444_TCP=tcp://10.0.0.1:8444",
		"JOINERY_API_PORT_8444_TCP_ADDR=10.0.0.1", "JOINERY_API_SERVICE_HOST=10.0.0.1",
		// An image's own.
		"JOINERY_VERSION=1.2.3",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Log.Level, want.Ops.Address, want.Keys.File = "debug", "0.0.0.0:9000", "/keys/server.age"
	want.Database = Database{URL: "postgres:///joinery"}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFromEnvironmentRefuses(t *testing.T) {
	for _, tc := range []struct{ environ, want string }{
		{"JOINERY_LOG_LEVL=debug", "did you mean JOINERY_LOG_LEVEL?"},
		{"JOINERY_KEYS_PASSPHRASE=swordfish", "$JOINERY_KEYS_PASSPHRASE overrides no setting"},
		{"JOINERY_LIMITS_CONNECTIONS=5", "known here are JOINERY_DATABASE_PATH, JOINERY_DATABASE_URL"},
		{"JOINERY_API_PORT=8080", "did you mean JOINERY_API_"},
		{"JOINERY_DB_PATH=/var/lib/joinery/joinery.db", "known here are JOINERY_DATABASE_PATH"},
		{"JOINERY_SOCKET=/run/joinery.sock", "did you mean JOINERY_API_SOCKET?"},
		{"JOINERY_DATABASE_PATH=swordfish\nJOINERY_DATABASE_URL=postgres:///swordfish", "keep the one that is meant"},
	} {
		_, err := Default().FromEnvironment(strings.Split(tc.environ, "\n"))
		if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "swordfish") {
			t.Errorf("%s: want %q in: %v", tc.environ, tc.want, err)
		}
	}
}
