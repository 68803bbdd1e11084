package claim

import (
	"os"
	"testing"

	"joinery/internal/keyring"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/store"
	"joinery/internal/store/storetest/sqlitetest"
)

// master is the name of the master key in the tests' keyring.
const master = "test-master"

// keys is the keyring that the tests of this package share.
var keys *keyring.Keyring

func TestMain(m *testing.M) { os.Exit(keyringtest.Main(m, master, &keys)) }

// newStore makes a database of the test's own.
func newStore(t testing.TB) *store.DB {
	t.Helper()
	return sqlitetest.New(t)
}
