// Package backup is the file of a backup: the rows of every table, compressed
// with Zstandard and encrypted to age recipients. It is never written in the
// clear. What it holds does not depend on the database engine that it came from.
//
// # The form
//
// Inside age and Zstandard stand the line "joinery-backup/1" and then frames:
// kind 1 ‖ length 4, big-endian ‖ content. In this order:
//
//	H  the Header, JSON
//	T  a table's name and columns, JSON; then its rows
//	R  rows of that table: each value is its kind and then, for a number, its 8
//	   bytes, big-endian, for text and bytes a length (uvarint) and as many bytes
//	E  the End, JSON: the number of rows of each table, and SHA-256 over all
//	   that stands before this frame
//
// age authenticates each piece and its end, so that a backup cut short or
// changed is refused; the end frame says the same about what we wrote ourselves.
// age does not say who made a backup: whoever knows a recipient can make one.
// Keep backups where nobody else can put any.
package backup
