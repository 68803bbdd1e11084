package main

import (
	"bytes"
	"os"
	"testing"
)

// TestCallsAreCurrent: what is checked in is what the document makes.
func TestCallsAreCurrent(t *testing.T) {
	want, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../../client/calls.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("client/calls.go is not what the document makes; run go generate ./client")
	}
}
