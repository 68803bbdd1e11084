package store

import (
	"errors"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"
)

// pgAway are the classes of SQLSTATE (its first two characters) of a database
// that is away for now: connection, authorisation, no such database, rolled
// back, resources, locks, operator's intervention, system, and a transaction
// that may not write on a standby.
var pgAway = map[string]bool{
	"08": true, "25": true, "28": true, "3D": true, "40": true, "53": true, "55": true, "57": true, "58": true,
}

// pgUnavailable tells whether err says that PostgreSQL may be back later.
func pgUnavailable(err error) bool {
	if errors.Is(err, errNoContact) {
		return true
	}
	state := pgState(err)
	return len(state) == 5 && pgAway[state[:2]]
}

// pgAllAway tells whether err says that PostgreSQL is away for everybody, and so
// for whoever waits, too: connection, resources, operator's intervention,
// system. A lock or a rollback concerns those who met with it.
func pgAllAway(err error) bool {
	if errors.Is(err, errNoContact) {
		return true
	}
	state := pgState(err)
	return len(state) == 5 && slices.Contains([]string{"08", "53", "57", "58"}, state[:2])
}

// pgState is the SQLSTATE of PostgreSQL's answer; empty where err is none.
func pgState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// SQLSTATEs that mean something to us.
const (
	pgUniqueViolation     = "23505"
	pgForeignKeyViolation = "23503"
	pgUntranslatable      = "22021" // text that is no UTF-8, or has a NUL
	pgUndefinedTable      = "42P01"
)
