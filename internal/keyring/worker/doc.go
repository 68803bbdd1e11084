// Package worker keeps the keys of a server in a process of its own: one that
// links a hardware token's library, which may crash, grow or hang, and that alone
// knows the token's PIN.
//
// The server's half is Keys: it starts the worker, asks it, starts another when it
// ends, and replaces it when it grew too large, without a verb failing. A worker
// whose token refuses the PIN is not started again until an operator orders it,
// since tokens lock themselves after a few tries.
//
// The worker's half is Serve. The two share one end each of a socket pair, which
// has no name that others could connect to; what the worker is to open comes on
// its standard input. It ends when the server does, however that came about.
package worker
