// Command clientgen writes the calls of the package client from the management
// API's OpenAPI document: one method an operation, over the types that client
// shares with the server. Run it with "go generate ./client".
//
// Generators that there are make types of their own from a document's schemas.
// Here the types come first and the document is made from them, so all that is
// left to generate is which method sends what where.
package main

import (
	"flag"
	"fmt"
	"os"

	"joinery/internal/api"
)

func main() {
	out := flag.String("o", "calls.go", "the file to write")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "clientgen:", err)
		os.Exit(1)
	}
}

func run(path string) error {
	source, err := generate()
	if err != nil {
		return err
	}
	return os.WriteFile(path, source, 0o644)
}

// generate gives the source of the calls.
func generate() ([]byte, error) {
	server, err := api.New(api.Options{})
	if err != nil {
		return nil, err
	}
	document, err := server.Document()
	if err != nil {
		return nil, err
	}
	calls, err := read(document)
	if err != nil {
		return nil, err
	}
	return write(calls)
}
