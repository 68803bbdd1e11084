// Command joinctl is the client of a Joinery server: everything that people and
// scripts do with one, over its HTTP API. It holds no state, and the one kind of
// secret that it reads, keys on their way into a server, it encrypts to that
// server before they leave the machine.
package main

import (
	"os"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
