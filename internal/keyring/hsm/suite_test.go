package hsm_test

import (
	"os"
	"testing"

	"joinery/internal/keyring/hsm/hsmtest"
	"joinery/internal/keyring/keyringtest"
)

func TestMain(m *testing.M) { os.Exit(hsmtest.Main(m)) }

// The backend passes the contract of every backend on SoftHSM2.
func TestContractOnSoftHSM(t *testing.T) {
	keyringtest.Run(t, func(tb testing.TB) keyringtest.Fixture {
		f, _ := hsmtest.Fixture(tb)
		for _, c := range f.Keyring.Custody() {
			tb.Log(c)
		}
		return f
	})
}
