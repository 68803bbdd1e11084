// Command joinery is the LoRaWAN Join Server, and everything that touches its
// keys or its database. People and scripts talk to a running server with
// joinctl.
package main

import "os"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }
