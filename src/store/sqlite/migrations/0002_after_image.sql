-- The user as a write left it is one column, whatever fields it has: see after_image.rs.

CREATE TABLE changes_with_image (
    revision INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    -- 1 created, 2 updated, 3 deleted. For a list in place of the range each insert
    -- would build a table of it.
    kind INTEGER NOT NULL CHECK (kind BETWEEN 1 AND 3),
    id TEXT NOT NULL,
    -- JSON; NULL where the write left no user, or where it was purged.
    after_image TEXT
) STRICT;

INSERT INTO changes_with_image (revision, time, kind, id, after_image)
SELECT revision, time, kind, id, CASE WHEN email IS NOT NULL THEN json_object('name', name,
    'email', email, 'age', age, 'create_time', create_time, 'update_time', update_time) END
FROM changes;

DROP TABLE changes;

ALTER TABLE changes_with_image RENAME TO changes;
