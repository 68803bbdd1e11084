// Package guides runs the pages of docs/guides as their readers do: the shell
// blocks of a page in order, in one shell, with the real programs and an empty
// home.
package guides
