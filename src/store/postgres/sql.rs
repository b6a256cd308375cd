//! Every statement of the store except the schema. Not portable are `UNNEST` and `ANY` of arrays, `ON CONFLICT`, `RETURNING`, and advisory
//! locks.

use tokio_postgres::types::Type;

/// The columns that [`super::rows::user`] reads, in its order.
macro_rules! user_columns {
    ($table:literal) => {
        concat!(
            $table,
            ".id, ",
            $table,
            ".name, ",
            $table,
            ".email, ",
            $table,
            ".age, ",
            $table,
            ".revision, ",
            $table,
            ".create_time, ",
            $table,
            ".update_time"
        )
    };
}

/// A statement that fails unless it writes so many rows.
macro_rules! all_rows {
    ($statement:literal, $count:literal) => {
        concat!(
            "WITH written AS (",
            $statement,
            " RETURNING 1) SELECT CAST(CASE WHEN (SELECT count(*) FROM written) <> ",
            $count,
            " THEN 'a trigger or a policy left rows out' ELSE '0' END AS integer)"
        )
    };
}

macro_rules! statements {
    ($($(#[doc = $doc:literal])* $name:ident($($type:ident),*) = $text:expr;)+) => {
        /// A statement that every connection knows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Sql { $($(#[doc = $doc])* $name,)+ }

        impl Sql {
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// The types of its parameters.
            pub fn types(self) -> &'static [Type] {
                match self { $(Self::$name => const { &[$(Type::$type,)*] },)+ }
            }
        }
    };
}

statements! {
    /// Some by id, and some by address; a user that matches both comes twice.
    Users(TEXT_ARRAY, TEXT_ARRAY) = concat!(
        "SELECT ", user_columns!("u"), " FROM user_service.users u WHERE id = ANY($1) UNION ALL SELECT ",
        user_columns!("u"), " FROM user_service.users u WHERE email = ANY($2)"
    );
    Page(TEXT, INT8) = concat!(
        "SELECT ", user_columns!("u"), " FROM user_service.users u WHERE id > $1 ORDER BY id LIMIT $2"
    );
    Revision() = "SELECT m.revision, m.fence FROM (VALUES (1)) one LEFT JOIN user_service.meta m ON true";
    /// The store's id, the last revision, and when it was made.
    LogHead() =
        "SELECT m.store_id, m.revision, c.time FROM user_service.meta m
         LEFT JOIN user_service.changes c ON c.revision = m.revision";
    Changes(INT8, INT8) = concat!(
        "SELECT ", user_columns!("c"), ", c.time, c.kind FROM user_service.changes c
         WHERE c.revision > $1 ORDER BY c.revision LIMIT $2"
    );
    /// The writes that were made before, the user as each left it, and as it is.
    Recorded(BYTEA_ARRAY, INT8) = concat!(
        "SELECT i.key, i.payload, i.id, i.revision, ", user_columns!("c"), ", ", user_columns!("u"),
        " FROM user_service.idempotency i
          LEFT JOIN user_service.changes c ON c.revision = i.revision AND c.email IS NOT NULL
          LEFT JOIN user_service.users u ON u.id = i.id
          WHERE i.key = ANY($1) AND i.time >= $2"
    );
    /// Moves the counter on and keeps others from doing so until the commit.
    /// Gives where it was.
    TakeRevisions(INT8) =
        "WITH taken AS
             (UPDATE user_service.meta SET revision = revision + $1 RETURNING revision - $1 AS base)
         SELECT (SELECT base FROM taken)";
    /// Fails if anything of a batch is not as it was at revision `$1`, or if the batch
    /// was given up. The text is what the server's log has of it.
    Check(INT8, TEXT_ARRAY, TEXT_ARRAY, BYTEA_ARRAY, INT8, INT8, INT8) =
        "SELECT CAST(CASE WHEN
             EXISTS (SELECT 1 FROM user_service.changes
                     WHERE revision > $1 AND revision <= (SELECT revision FROM user_service.meta)
                         AND (id = ANY($2) OR email = ANY($3)))
             OR (SELECT count(*) FROM user_service.idempotency WHERE key = ANY($4) AND time >= $5) <> $6
             OR (SELECT fence FROM user_service.meta) <> $7
         THEN 'another replica was faster; this batch is made again' ELSE '0' END AS integer)";
    /// Fails unless all of `$2` users were there. This one and those below fail where a
    /// trigger or a policy leaves rows out, which the database says nothing of.
    Delete(TEXT_ARRAY, INT8) = all_rows!(
        "DELETE FROM user_service.users WHERE id = ANY($1)", "$2"
    );
    /// Here and below revisions are counted back from the counter, which is ours.
    Put(TEXT_ARRAY, TEXT_ARRAY, TEXT_ARRAY, INT4_ARRAY, INT8_ARRAY, INT8_ARRAY, INT8_ARRAY) = all_rows!(
        "INSERT INTO user_service.users (id, name, email, age, revision, create_time, update_time)
         SELECT id, name, email, age, m.revision + behind, create_time, update_time
         FROM UNNEST($1, $2, $3, $4, $5, $6, $7)
             AS u (id, name, email, age, behind, create_time, update_time), user_service.meta m
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, email = excluded.email, age = excluded.age,
             revision = excluded.revision, create_time = excluded.create_time,
             update_time = excluded.update_time", "cardinality($1)"
    );
    Log(UUID, INT8_ARRAY, INT8_ARRAY, INT4_ARRAY, TEXT_ARRAY, TEXT_ARRAY, TEXT_ARRAY, INT4_ARRAY, INT8_ARRAY,
        INT8_ARRAY) = all_rows!(
        "INSERT INTO user_service.changes
             (batch, revision, time, kind, id, name, email, age, create_time, update_time)
         SELECT $1, m.revision + behind, time, kind, id, name, email, age, create_time, update_time
         FROM UNNEST($2, $3, $4, $5, $6, $7, $8, $9, $10)
             AS c (behind, time, kind, id, name, email, age, create_time, update_time), user_service.meta m",
        "cardinality($2)"
    );
    Record(BYTEA_ARRAY, BYTEA_ARRAY, TEXT_ARRAY, INT8_ARRAY, INT8_ARRAY) = all_rows!(
        "INSERT INTO user_service.idempotency (key, payload, id, revision, time)
         SELECT key, payload, id, COALESCE(m.revision + behind, 0), time
         FROM UNNEST($1, $2, $3, $4, $5) AS i (key, payload, id, behind, time), user_service.meta m
         ON CONFLICT (key) DO UPDATE SET payload = excluded.payload, id = excluded.id,
             revision = excluded.revision, time = excluded.time", "cardinality($1)"
    );
    /// Waits until no transaction holds the counter.
    LockRevision() = "SELECT revision FROM user_service.meta FOR UPDATE";
    /// A row of the write-ahead log, and so something to commit.
    Touch() = "UPDATE user_service.meta SET revision = revision";
    /// Keeps a batch that may still be on its way from being committed.
    Fence() = "UPDATE user_service.meta SET fence = fence + 1";
    /// The revision before a batch's first, if it was committed.
    Committed(INT8, UUID) =
        "SELECT min(revision) - 1 FROM user_service.changes
         WHERE revision > $1 AND revision <= (SELECT revision FROM user_service.meta) AND batch = $2";
    /// One replica clears at a time.
    PruneRecorded(INT8, INT8, INT8) =
        "DELETE FROM user_service.idempotency WHERE key IN
             (SELECT key FROM user_service.idempotency WHERE time < $1 ORDER BY time LIMIT $2)
         AND (SELECT pg_try_advisory_xact_lock($3)) RETURNING 1";
    /// By revision, so that the log loses its oldest entries and has no holes.
    /// The last one stays, because it is the position of the watches.
    PruneChanges(INT8, INT8, INT8, INT8) =
        "DELETE FROM user_service.changes WHERE revision < (SELECT revision FROM user_service.meta)
         AND revision <= (SELECT max(revision) FROM
             (SELECT revision, time FROM user_service.changes ORDER BY revision LIMIT $2) old
             WHERE time < $1 OR revision <= (SELECT revision FROM user_service.meta) - $4)
         AND (SELECT pg_try_advisory_xact_lock($3)) RETURNING 1";
}
