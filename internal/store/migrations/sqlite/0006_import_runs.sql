-- Which devices the rows of an import are, in the file's order: one row for each
-- run of rows that was taken together.
CREATE TABLE import_run (
    import  INTEGER NOT NULL REFERENCES import,
    first   INTEGER NOT NULL CHECK (first >= 0), -- index of the run's first row
    devices BLOB    NOT NULL CHECK (length(devices) % 8 = 0), -- their ids, 8 bytes each, big-endian; 0: the row was refused
    PRIMARY KEY (import, first)
) STRICT, WITHOUT ROWID;
