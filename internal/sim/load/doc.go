// Package load drives a Join Server with many simulated devices over a given
// number of kept-alive connections, and measures what comes of it.
//
// No answer goes unread: each is checked as its device, its Network Server and
// its Application Server would, keys and counters included. A replay or a wrong
// MIC that is not refused is an error like any other.
package load
