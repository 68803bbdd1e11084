package store

import (
	"context"
	"time"

	"joinery"
)

// AddSession stores a session. Those that have ended are removed with it.
func (d *DB) AddSession(ctx context.Context, s joinery.Session) error {
	return d.do(ctx, func(t *tx) error {
		if err := t.exec("DELETE FROM session WHERE expires_at <= ?", s.CreatedAt); err != nil {
			return err
		}
		return t.exec("INSERT INTO session (id, person, kind, name, hash, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
			s.ID, s.Person, s.Kind, s.Name, s.Hash, s.CreatedAt, s.ExpiresAt)
	})
}

const sessionColumns = "SELECT id, person, kind, name, hash, created_at, expires_at, last_used_at FROM session "

func scanSession(r *row) joinery.Session {
	s := joinery.Session{ID: joinery.SessionID(r.int()), Person: joinery.PersonID(r.int()), Kind: joinery.SessionKind(r.text()), Name: r.text()}
	r.into(s.Hash[:])
	s.CreatedAt, s.ExpiresAt, s.LastUsedAt = r.time(), r.time(), r.time()
	return s
}

// SessionStanding finds a session, one that has ended too, with where its person
// belongs at present; CodeNotFound.
func (d *DB) SessionStanding(ctx context.Context, id joinery.SessionID) (s joinery.Session, list []joinery.Membership, err error) {
	err = d.snapshot(ctx, func(c conn) error {
		found, err := c.one(sessionColumns+"WHERE id = ?", func(r *row) error { s = scanSession(r); return nil }, id)
		if err == nil && !found {
			err = notFound("session")
		}
		if err != nil {
			return err
		}
		list, err = c.memberships(d.operator, s.Person)
		return err
	})
	return s, list, err
}

// Sessions gives somebody's sessions, in order of their ids.
func (d *DB) Sessions(ctx context.Context, person joinery.PersonID) (list []joinery.Session, err error) {
	err = d.read(ctx, func(c conn) error {
		return c.each(sessionColumns+"WHERE person = ? ORDER BY id", func(r *row) error { list = append(list, scanSession(r)); return nil }, person)
	})
	return list, err
}

// EndSession ends a session of a person; CodeNotFound.
func (d *DB) EndSession(ctx context.Context, person joinery.PersonID, id joinery.SessionID) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes("DELETE FROM session WHERE id = ? AND person = ?", id, person)
		if err == nil && n == 0 {
			err = notFound("session")
		}
		return err
	})
}

// TouchSession notes that a session was used at that time.
func (d *DB) TouchSession(ctx context.Context, id joinery.SessionID, at time.Time) error {
	return d.do(ctx, func(t *tx) error {
		return t.exec("UPDATE session SET last_used_at = ?1 WHERE id = ?2 AND (last_used_at IS NULL OR last_used_at < ?1)", at, id)
	})
}

// maxSignIns bounds the steps of signing in that wait: of each kind, of all people
// together.
const maxSignIns = 10000

// AddSignIn stores a step of signing in. Those that have ended are removed with
// it, and where too many of its kind wait, the oldest for which nobody has proved
// anything: anybody can begin such steps, and must not keep others from it.
// CodeRateLimited where there is none; CodeConflict where its code is taken.
func (d *DB) AddSignIn(ctx context.Context, ch joinery.SignIn, now time.Time) error {
	return d.do(ctx, func(t *tx) error {
		if err := t.exec("DELETE FROM sign_in WHERE expires_at <= ?", now); err != nil {
			return err
		}
		if err := t.makeRoom(ch.Kind); err != nil {
			return err
		}
		return conflict(t.exec("INSERT INTO sign_in (hash, kind, person, code, name, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
			ch.Hash, ch.Kind, optional{ch.Person}, optional{ch.Code}, ch.Name, ch.ExpiresAt), "the code is taken")
	})
}

// makeRoom sees to it that one more step of a kind may wait.
func (t *tx) makeRoom(kind joinery.SignInKind) error {
	waiting, err := t.integer("SELECT count(*) FROM sign_in WHERE kind = ?", kind)
	if err != nil || waiting < maxSignIns {
		return err
	}
	// All of a kind wait equally long: the first to end is the oldest.
	n, err := t.changes(`DELETE FROM sign_in WHERE hash = (SELECT hash FROM sign_in WHERE kind = ? AND person IS NULL
		ORDER BY expires_at, hash LIMIT 1)`, kind)
	if err == nil && n == 0 {
		err = joinery.Errorf(joinery.CodeRateLimited, "too many people sign in at this moment; try again in some minutes")
	}
	return err
}

const signInColumns = "SELECT hash, kind, person, code, name, expires_at FROM sign_in "

func scanSignIn(r *row) (ch joinery.SignIn) {
	r.into(ch.Hash[:])
	ch.Kind, ch.Person, ch.Code, ch.Name, ch.ExpiresAt = joinery.SignInKind(r.text()), joinery.PersonID(r.int()), r.text(), r.text(), r.time()
	return ch
}

// SignIn finds a step that waits; CodeNotFound.
func (d *DB) SignIn(ctx context.Context, hash [32]byte) (joinery.SignIn, error) {
	return d.signIn(ctx, "WHERE hash = ?", hash)
}

// SignInByCode finds the step of a program by what its person typed; CodeNotFound.
func (d *DB) SignInByCode(ctx context.Context, code string) (joinery.SignIn, error) {
	return d.signIn(ctx, "WHERE code = ?", code)
}

func (d *DB) signIn(ctx context.Context, where string, arg any) (ch joinery.SignIn, err error) {
	err = d.read(ctx, func(c conn) error {
		found, err := c.one(signInColumns+where, func(r *row) error { ch = scanSignIn(r); return nil }, arg)
		if err == nil && !found {
			err = notFound("sign-in")
		}
		return err
	})
	return ch, err
}

// TakeSignIn uses a step up: it serves once, also where two ask at once;
// CodeNotFound.
func (d *DB) TakeSignIn(ctx context.Context, hash [32]byte) (ch joinery.SignIn, err error) {
	return write(ctx, d, func(t *tx) (ch joinery.SignIn, err error) {
		found, err := t.one(signInColumns+"WHERE hash = ?", func(r *row) error { ch = scanSignIn(r); return nil }, hash)
		if err == nil && !found {
			err = notFound("sign-in")
		}
		if err != nil {
			return joinery.SignIn{}, err
		}
		return ch, t.exec("DELETE FROM sign_in WHERE hash = ?", hash)
	})
}

// AgreeToSignIn lets a program go on as a person; CodeNotFound where it does
// not wait, or somebody agreed already.
func (d *DB) AgreeToSignIn(ctx context.Context, hash [32]byte, person joinery.PersonID, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes("UPDATE sign_in SET person = ? WHERE hash = ? AND person IS NULL AND kind = 'program'", person, hash)
		if err == nil && n == 0 {
			err = notFound("sign-in")
		}
		if err != nil {
			return err
		}
		return t.auditEverywhere(person, a)
	})
}
