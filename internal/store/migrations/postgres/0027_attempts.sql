-- Refused attempts at the management API, until their hour is over: then the custody
-- log has their count, and the row goes. org is who is told, device 0 for what is about
-- none. count is what was not told yet.
CREATE TABLE attempt (
    org      bigint           NOT NULL REFERENCES organisation,
    device   bigint           NOT NULL,
    by_whom  text COLLATE "C" NOT NULL,
    act      text COLLATE "C" NOT NULL,
    reason   text COLLATE "C" NOT NULL,
    count    bigint           NOT NULL CHECK (count >= 0),
    first_at bigint           NOT NULL,
    last_at  bigint           NOT NULL,
    told_at  bigint           NOT NULL, -- 0: never
    PRIMARY KEY (org, device, by_whom, act, reason),
    CHECK (first_at <= last_at)
);
CREATE INDEX attempt_told ON attempt (told_at);
CREATE INDEX attempt_device ON attempt (device) WHERE device > 0;

-- What numbers of receipts mean: drawn anew whenever the state may be an older one, 0
-- before the first time. cursor_epoch is that of the Join Server whose receipts were
-- read up to cursor.
ALTER TABLE store ADD COLUMN receipt_epoch bigint NOT NULL DEFAULT 0 CHECK (receipt_epoch >= 0);
ALTER TABLE join_server ADD COLUMN cursor_epoch bigint NOT NULL DEFAULT 0 CHECK (cursor_epoch >= 0);

-- The counter below which no device goes that has shown a release, where its maker
-- lowered that; NULL: the release's own.
ALTER TABLE firmware_release ADD COLUMN floor bigint CHECK (floor >= 0 AND floor < counter);
