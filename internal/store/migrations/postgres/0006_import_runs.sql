-- Which devices the rows of an import are, in the file's order: one row for each
-- run of rows that was taken together.
CREATE TABLE import_run (
    import  bigint NOT NULL REFERENCES import,
    first   bigint NOT NULL CHECK (first >= 0), -- index of the run's first row
    devices bytea  NOT NULL CHECK (length(devices) % 8 = 0), -- their ids, 8 bytes each, big-endian; 0: the row was refused
    PRIMARY KEY (import, first)
);
