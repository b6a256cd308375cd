//! Every statement of the store except the schema; what lists columns is made by `columns.rs`.
//! Not portable are `UNNEST` and `ANY` of arrays, `ON CONFLICT`, `RETURNING`, and advisory
//! locks.

use std::sync::LazyLock;

use tokio_postgres::types::Type;

use super::columns::{COLUMNS, arrays, put, selected};

/// The table of the counter.
const META: &str = "user_service.meta";

/// A statement that fails unless it writes so many rows.
fn all_rows(statement: &str, count: &str) -> String {
    format!(
        "WITH written AS ({statement} RETURNING 1)
         SELECT CAST(CASE WHEN (SELECT count(*) FROM written) <> {count}
         THEN 'a trigger or a policy left rows out' ELSE '0' END AS integer)"
    )
}

/// Users by `$1`, ids, and by `$2`, addresses.
fn users() -> String {
    format!(
        "SELECT {user} FROM user_service.users u WHERE id = ANY($1)
         UNION ALL SELECT {user} FROM user_service.users u WHERE email = ANY($2)",
        user = selected()
    )
}

/// Inserts changes, arrays from parameter `$first` on. Revisions as in [`put`].
fn log(first: usize, meta: &str) -> String {
    let [batch, behind, time, kind, id, email, image] = std::array::from_fn(|n| format!("${}", first + n));
    format!(
        "INSERT INTO user_service.changes (batch, revision, time, kind, id, email, after_image)
         SELECT {batch}, m.revision + behind, time, kind, id, email, after_image
         FROM UNNEST({behind}, {time}, {kind}, {id}, {email}, {image})
             AS c (behind, time, kind, id, email, after_image), {meta} m"
    )
}

/// The types of what [`log`] takes.
const LOG: [Type; 7] = [
    Type::UUID,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT4_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
];

macro_rules! statements {
    ($($(#[doc = $doc:literal])* $name:ident $types:tt = $text:expr;)+) => {
        /// A statement that every connection knows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Sql { $($(#[doc = $doc])* $name,)+ }

        /// The text of each, and the types of its parameters.
        static STATEMENTS: LazyLock<Vec<(String, Vec<Type>)>> =
            LazyLock::new(|| vec![$((String::from($text), types!($types)),)+]);

        impl Sql {
            pub const ALL: &[Self] = &[$(Self::$name,)+];
        }
    };
}

macro_rules! types {
    (($($of:ident),*)) => { vec![$(Type::$of),*] };
    ([$types:expr]) => { $types };
}

impl Sql {
    pub fn text(self) -> &'static str {
        &STATEMENTS[self as usize].0
    }

    /// The types of its parameters.
    pub fn types(self) -> &'static [Type] {
        &STATEMENTS[self as usize].1
    }
}

statements! {
    /// Some by id, and some by address; a user that matches both comes twice.
    Users(TEXT_ARRAY, TEXT_ARRAY) = users();
    /// The same behind the counter and the fence, and a row also where there is no user.
    Known(TEXT_ARRAY, TEXT_ARRAY) = format!(
        "SELECT m.revision, m.fence, {} FROM (VALUES (1)) one
         LEFT JOIN user_service.meta m ON true LEFT JOIN ({}) u ON true", selected(), users()
    );
    UsersById(TEXT_ARRAY) =
        format!("SELECT {} FROM user_service.users u WHERE id = ANY($1)", selected());
    Page(TEXT, INT8) = format!(
        "SELECT {} FROM user_service.users u WHERE id > $1 ORDER BY id LIMIT $2", selected()
    );
    Revision() = "SELECT m.revision, m.fence FROM (VALUES (1)) one LEFT JOIN user_service.meta m ON true";
    /// The store's id, the last revision, and when it was made.
    LogHead() =
        "SELECT m.store_id, m.revision, c.time FROM user_service.meta m
         LEFT JOIN user_service.changes c ON c.revision = m.revision";
    Changes(INT8, INT8) =
        "SELECT revision, time, kind, id, after_image FROM user_service.changes
         WHERE revision > $1 ORDER BY revision LIMIT $2";
    /// The writes that were made before, the user as each left it, and as it is.
    Recorded(BYTEA_ARRAY, INT8) = format!(
        "SELECT i.key, i.payload, i.id, i.revision, c.after_image, {}
         FROM user_service.idempotency i
         LEFT JOIN user_service.changes c ON c.revision = i.revision
         LEFT JOIN user_service.users u ON u.id = i.id
         WHERE i.key = ANY($1) AND i.time >= $2", selected()
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
    Delete(TEXT_ARRAY, INT8) = all_rows("DELETE FROM user_service.users WHERE id = ANY($1)", "$2");
    Put[arrays()] = all_rows(&put(1, META), "cardinality($1)");
    /// Here and below revisions are counted back from the counter, which is ours.
    Log[LOG.into()] = all_rows(&log(1, META), "cardinality($2)");
    /// A whole batch without a transaction around it: `$1` revisions, users and changes. Writes
    /// nothing and gives no row unless the counter is still at `$2`, so nothing has changed, and the
    /// fence at `$3`. Gives where the counter was.
    CommitAlone[[vec![Type::INT8; 3], arrays(), LOG.into()].concat()] = format!(
        "WITH taken AS (UPDATE user_service.meta SET revision = revision + $1
             WHERE revision = $2 AND fence = $3 RETURNING revision),
         put AS ({} RETURNING 1), logged AS ({} RETURNING 1)
         SELECT revision - $1, CAST(CASE WHEN (SELECT count(*) FROM put) <> cardinality($4)
             OR (SELECT count(*) FROM logged) <> cardinality(${})
         THEN 'a trigger or a policy left rows out' ELSE '0' END AS integer) FROM taken",
        put(4, "taken"), log(4 + COLUMNS.len(), "taken"), 5 + COLUMNS.len()
    );
    Record(BYTEA_ARRAY, BYTEA_ARRAY, TEXT_ARRAY, INT8_ARRAY, INT8_ARRAY) = all_rows(
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
