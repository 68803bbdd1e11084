// Package leak searches for secrets that a test knows: in text, in files and in
// the memory of processes, in every form in which a key could turn up. Tests of
// several packages hunt with it; no program links it.
package leak
