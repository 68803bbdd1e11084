package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// Scripts that need no server.
func TestOfflineScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/offline", RequireExplicitExec: true})
}
