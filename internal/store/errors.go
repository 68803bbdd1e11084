package store

import (
	"errors"

	"zombiezen.com/go/sqlite"

	"joinery"
)

// Errors of Create, Migrate and Open. Each comes with a text that names the
// file and says what to do.
var (
	ErrMissing     = errors.New("database does not exist")
	ErrExists      = errors.New("database exists already")
	ErrLocked      = errors.New("database is in use")
	ErrNotDatabase = errors.New("not a database")
	ErrForeign     = errors.New("database of another program")
	ErrOlderSchema = errors.New("database has an older schema")
	ErrNewerSchema = errors.New("database has a newer schema")
	ErrUnwritable  = errors.New("database cannot be written")
	ErrNotDurable  = errors.New("database would lose commits")
	ErrMoved       = errors.New("database was moved")
	ErrCopy        = errors.New("state cannot be copied")
)

// Errors of a DB.
var (
	// ErrSwapLost: the key set moved since it was loaded; nothing was written.
	ErrSwapLost = joinery.ErrSwapLost
	// ErrClosed: the DB was closed, or was opened for reading only.
	ErrClosed = errors.New("database is closed to this call")
	// ErrFenced: joins are refused until the operator confirms which database
	// counts.
	ErrFenced = errors.New("the database is fenced")
	// ErrSucceeded: another server has opened the database since; this one
	// must stop.
	ErrSucceeded = errors.New("another server has taken over the database")
	// ErrUnsynced: the disk failed to keep what was written; nothing more is
	// written until the database is opened anew.
	ErrUnsynced = errors.New("the disk did not keep what was written")
)

// unavailable are the primary result codes of a database that is away for now:
// disk full, I/O error, locked out, out of memory.
var unavailable = map[sqlite.ResultCode]bool{
	sqlite.ResultBusy: true, sqlite.ResultLocked: true, sqlite.ResultFull: true,
	sqlite.ResultIOErr: true, sqlite.ResultNoMem: true, sqlite.ResultReadOnly: true,
	sqlite.ResultCantOpen: true, sqlite.ResultProtocol: true, sqlite.ResultInterrupt: true,
}

// storeError gives err a code, unless it has one: CodeUnavailable where the
// database may be back later. The engine's text stays in the cause.
func storeError(err error) error {
	if err == nil || errors.Is(err, ErrSwapLost) {
		return err
	}
	if _, coded := errors.AsType[*joinery.Error](err); coded {
		return err
	}
	switch code := sqlite.ErrCode(err); {
	case errors.Is(err, ErrClosed), errors.Is(err, ErrSucceeded), errors.Is(err, ErrUnsynced), unavailable[code.ToPrimary()], pgUnavailable(err):
		return joinery.WrapError(joinery.CodeUnavailable, err, "the database is not available; try again later")
	case pgState(err) == pgUntranslatable:
		return joinery.WrapError(joinery.CodeInvalid, err, "a text has a character that cannot be stored")
	default:
		return err
	}
}

// isUnique tells whether err is a violated unique index or primary key.
func isUnique(err error) bool {
	code := sqlite.ErrCode(err)
	return code == sqlite.ResultConstraintUnique || code == sqlite.ResultConstraintPrimaryKey || pgState(err) == pgUniqueViolation
}

// isForeignKey tells whether err is a reference to a row that does not exist.
func isForeignKey(err error) bool {
	return sqlite.ErrCode(err) == sqlite.ResultConstraintForeignKey || pgState(err) == pgForeignKeyViolation
}

// conflict turns a violated unique index into CodeConflict with message, a
// missing row into CodeNotFound, and leaves every other error as it is.
func conflict(err error, format string, args ...any) error {
	switch {
	case isUnique(err):
		return joinery.WrapError(joinery.CodeConflict, err, format, args...)
	case isForeignKey(err):
		return joinery.WrapError(joinery.CodeNotFound, err, "no such organisation, peer or device")
	default:
		return err
	}
}

func notFound(what string) error { return joinery.Errorf(joinery.CodeNotFound, "no such %s", what) }
