-- Times are microseconds since 1970, UTC. Texts that are keys are ordered by
-- their bytes, as in every other store.

CREATE SCHEMA IF NOT EXISTS user_service;

-- One row, written by every commit: room for its versions on its one page.
CREATE TABLE user_service.meta (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    schema_version integer NOT NULL,
    -- Random: tells this store from every other, copies restored elsewhere apart.
    store_id uuid NOT NULL DEFAULT gen_random_uuid(),
    -- The last revision given out. Locked from when it is moved on until the
    -- commit, so revisions are in commit order.
    revision bigint NOT NULL,
    -- Moved on by whoever gives a batch up whose commit got no answer: one that
    -- began before cannot be committed any more.
    fence bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

INSERT INTO user_service.meta (schema_version, revision) VALUES (0, 0);

CREATE TABLE user_service.users (
    id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    -- Checked at the end of each statement, so that addresses may change hands
    -- within one.
    email text COLLATE "C" NOT NULL UNIQUE DEFERRABLE INITIALLY IMMEDIATE,
    age integer NOT NULL,
    revision bigint NOT NULL,
    create_time bigint NOT NULL,
    update_time bigint NOT NULL
);

-- What each write did: the user as it left it, no fields where it left none.
CREATE TABLE user_service.changes (
    revision bigint PRIMARY KEY,
    -- The transaction that it belongs to, known again when its commit got no answer.
    batch uuid NOT NULL,
    time bigint NOT NULL,
    -- 1 created, 2 updated, 3 deleted
    kind integer NOT NULL CHECK (kind IN (1, 2, 3)),
    id text COLLATE "C" NOT NULL,
    name text,
    email text COLLATE "C",
    age integer,
    create_time bigint,
    update_time bigint
);

-- How to know a repeated write again. Hashes only, no personal data.
CREATE TABLE user_service.idempotency (
    key bytea PRIMARY KEY,
    payload bytea NOT NULL,
    id text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    time bigint NOT NULL
);

CREATE INDEX idempotency_by_time ON user_service.idempotency (time);
