-- Devices of one owner lie in the order in which they are listed, the rare ones
-- among them once more by themselves.
DROP INDEX device_org;
CREATE INDEX device_owner ON device (org, dev_eui, join_eui) WHERE deleted_at IS NULL;
CREATE INDEX device_suspended ON device (org, dev_eui, join_eui) WHERE suspended = 1 AND deleted_at IS NULL;
CREATE INDEX device_disclosed ON device (org, dev_eui, join_eui) WHERE disclosed = 1 AND deleted_at IS NULL;

-- When devices joined last, in that order. Joins write nothing here: it follows
-- them, and what it says is looked up in key_set before anybody is told.
CREATE TABLE last_join (
    device INTEGER PRIMARY KEY REFERENCES device,
    org    INTEGER NOT NULL REFERENCES organisation, -- the owner now
    at     INTEGER NOT NULL
) STRICT;
CREATE INDEX last_join_owner ON last_join (org, at, device);
CREATE INDEX last_join_at ON last_join (at, device);

-- At most one row: the last activation that last_join knows of.
CREATE TABLE last_join_seen (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    activation INTEGER NOT NULL CHECK (activation >= 0)
) STRICT;
INSERT INTO last_join_seen (id, activation) SELECT 1, max(id) FROM activation HAVING max(id) > 0;
INSERT INTO last_join (device, org, at)
    SELECT d.id, d.org, k.last_join_at FROM device d JOIN key_set k ON k.id = d.key_set WHERE k.last_join_at IS NOT NULL;

-- What requests with an Idempotency-Key were answered, for a day. The row comes
-- with the change that the request makes, status 0, and its answer behind that.
-- request is a MAC over what was sent, under the key itself, which is not stored;
-- nor is an answer that holds a secret.
CREATE TABLE answer (
    id           BLOB  PRIMARY KEY CHECK (length(id) = 32),
    request      BLOB  NOT NULL CHECK (length(request) = 32),
    status       INTEGER NOT NULL CHECK (status >= 0),
    content_type TEXT NOT NULL,
    etag         TEXT NOT NULL,
    body         BLOB ,
    at           INTEGER NOT NULL
) STRICT;
CREATE INDEX answer_at ON answer (at);
