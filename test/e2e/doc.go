// Package e2e runs the real programs against each other: what an operator or an
// owner changes while the server serves, seen from the networks and devices.
package e2e
