-- Times are microseconds since 1970, UTC.

CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    -- Random: tells this store from every other, copies restored elsewhere apart.
    store_id BLOB NOT NULL,
    -- The last revision given out. Revisions are in commit order.
    revision INTEGER NOT NULL,
    -- Counts the writes that only find out whether the disk has room.
    probes INTEGER NOT NULL
) STRICT;

INSERT INTO meta (one, store_id, revision, probes) VALUES (1, randomblob(16), 0, 0);

CREATE TABLE users (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    email TEXT NOT NULL UNIQUE,
    age INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    create_time INTEGER NOT NULL,
    update_time INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What each write did: the user as it left it, no fields where it left none.
CREATE TABLE changes (
    revision INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    -- 1 created, 2 updated, 3 deleted. For a list in place of the range each insert
    -- would build a table of it.
    kind INTEGER NOT NULL CHECK (kind BETWEEN 1 AND 3),
    id TEXT NOT NULL,
    name TEXT,
    email TEXT,
    age INTEGER,
    create_time INTEGER,
    update_time INTEGER
) STRICT;

-- How to know a repeated write again. Hashes only, no personal data.
CREATE TABLE idempotency (
    key BLOB PRIMARY KEY,
    payload BLOB NOT NULL,
    id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    time INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_by_time ON idempotency (time);
