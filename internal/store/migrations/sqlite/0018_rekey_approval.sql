-- Rekeying asks another person where exports would, and goes to recipients of the
-- owner's as well as to pinned Join Servers.

-- Orders to rekey. requested waits for another admin of the organisation, who
-- approves device, JoinEUI and the key that thumbprint names. One of a device is
-- open at most; that it expired is seen by its time.
CREATE TABLE rekey_order (
    id            INTEGER PRIMARY KEY,
    device        INTEGER NOT NULL REFERENCES device,
    state         TEXT    NOT NULL CHECK (state IN ('requested', 'armed', 'sent', 'confirmed', 'cancelled', 'rejected', 'expired')),
    join_eui      BLOB    NOT NULL CHECK (length(join_eui) = 8),
    cookie        BLOB    NOT NULL CHECK (length(cookie) = 7),
    join_server   INTEGER REFERENCES join_server,
    recipient     INTEGER REFERENCES export_recipient, -- who has its key opens the new root keys
    thumbprint    TEXT    NOT NULL, -- of the key to which they go; '' in orders of earlier versions
    org           INTEGER NOT NULL REFERENCES organisation,
    actor         TEXT    NOT NULL,
    person        INTEGER, -- who asked, or made the API key that did
    at            INTEGER NOT NULL,
    armed_at      INTEGER, -- NULL: nobody approved it
    decided_by    TEXT,    -- who approved or rejected it; NULL: nobody had to
    expires_at    INTEGER NOT NULL,
    sent          INTEGER NOT NULL CHECK (sent >= 0),
    first_sent_at INTEGER,
    last_sent_at  INTEGER,
    ended_at      INTEGER,
    UNIQUE (device, cookie),
    CHECK ((join_server IS NULL) <> (recipient IS NULL)),
    CHECK ((sent = 0) = (first_sent_at IS NULL)),
    CHECK ((sent = 0) = (last_sent_at IS NULL)),
    CHECK (armed_at IS NOT NULL OR sent = 0),
    CHECK (armed_at IS NOT NULL OR state NOT IN ('armed', 'sent', 'confirmed')),
    CHECK (armed_at IS NULL OR state NOT IN ('requested', 'rejected')),
    CHECK ((state IN ('requested', 'armed', 'sent')) = (ended_at IS NULL))
) STRICT;
INSERT INTO rekey_order (id, device, state, join_eui, cookie, join_server, thumbprint, org, actor, at, armed_at, expires_at, sent, first_sent_at, last_sent_at, ended_at)
    SELECT id, device, state, join_eui, cookie, join_server, '', org, actor, at, at, expires_at, sent, first_sent_at, last_sent_at, ended_at FROM rekey;
DROP TABLE rekey;
ALTER TABLE rekey_order RENAME TO rekey;
CREATE UNIQUE INDEX rekey_open ON rekey (device) WHERE ended_at IS NULL;
CREATE INDEX rekey_requested ON rekey (org, id) WHERE state = 'requested';

-- By which order root keys were disclosed, where it was no export.
ALTER TABLE disclosure ADD COLUMN rekey INTEGER REFERENCES rekey;
CREATE INDEX disclosure_rekey ON disclosure (rekey) WHERE rekey IS NOT NULL;

-- By whose word a device rekeys so: 0 its owner's, 1 the importer's, 2 its signed
-- manifest's, 3 its own, which signed with what came of it.
ALTER TABLE device ADD COLUMN rekey_word INTEGER NOT NULL DEFAULT 0 CHECK (rekey_word IN (0, 1, 2, 3));

-- What whoever imports says of elements whose manifest says nothing.
ALTER TABLE import ADD COLUMN rekey_profile INTEGER NOT NULL DEFAULT 0 CHECK (rekey_profile IN (0, 1, 2));
