-- The user as a write left it is one column, whatever fields it has: see after_image.rs.
-- This step takes columns away. No release used them.

-- JSON; NULL where the write left no user, or where it was purged.
ALTER TABLE user_service.changes ADD COLUMN after_image text;

UPDATE user_service.changes SET after_image = json_build_object('name', name, 'email', email,
    'age', age, 'create_time', create_time, 'update_time', update_time)
WHERE email IS NOT NULL;

ALTER TABLE user_service.changes DROP COLUMN name, DROP COLUMN age, DROP COLUMN create_time,
    DROP COLUMN update_time;

COMMENT ON COLUMN user_service.changes.email IS
    'The address that the write set, for the check of a batch against other replicas.';
