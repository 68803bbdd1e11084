// Package activation answers the four questions that networks and applications
// ask a Join Server: may this device join (Join, Rejoin), which key opens this
// session's data (AppSKey), and where is this device at home (HomeNS).
//
// Every answer that changes state goes the same way: load, decide, compute,
// commit, answer. Nothing is computed into state, and nothing leaves before the
// commit is durable. docs/join-cycle.md tells the steps and what holds after a
// crash at each of them.
package activation
