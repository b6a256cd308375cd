"""A PostgreSQL of its own, as durable as PostgreSQL is, and what pgbench gets
from it."""

import os
import re
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from rig import machine

# Whom root becomes, because the server refuses to run as root.
NOBODY = 65534

READ = """\\set n random(0, {users} - 1)
SELECT id, name, email, age, revision, create_time, update_time FROM user_service.users WHERE id = 'u-' || :n;
"""

# One row of one table, where the service writes users, change log and counter.
INSERT = """\\set a random(1, 9000000000000000000)
INSERT INTO bare VALUES ('i-' || :a, 'Ada', 'e-' || :a, 36, :a, 0, 0);
"""

BARE = """CREATE TABLE bare (id text COLLATE "C" PRIMARY KEY, name text NOT NULL, email text COLLATE "C" NOT NULL UNIQUE,
    age integer NOT NULL, revision bigint NOT NULL, create_time bigint NOT NULL, update_time bigint NOT NULL)"""

# Each commit takes 20 ms longer. One by one: a string of several would be one transaction.
SLOW_COMMITS = ("ALTER SYSTEM SET commit_siblings = 0", "ALTER SYSTEM SET commit_delay = 20000",
                "SELECT pg_reload_conf()")


def slow_commits(seconds):
    """Each commit of the service takes so much longer, and holds the counter's row meanwhile."""
    return (f"CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END $$",
            "CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON user_service.meta DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION slow()")


# Each statement that reads users takes 50 ms longer: it has a part for ids and one for addresses.
SLOW_READS = """BEGIN;
ALTER TABLE user_service.users RENAME TO quick;
CREATE VIEW user_service.users AS SELECT quick.* FROM user_service.quick, pg_sleep(0.025);
COMMIT"""

TABLES = ("users", "changes")


def bare_loads(database, batch):
    """Two files of SQL that load what the service's tables hold into tables of the
    same kind: a commit for so many users, and by COPY in one."""
    rows, inserts, copies = {}, database.directory / "inserts.sql", database.directory / "copies.sql"
    for table in TABLES:
        order = database.sql(f"COPY (SELECT * FROM user_service.{table} ORDER BY revision) TO STDOUT")
        rows[table] = order.splitlines()
    with inserts.open("w") as file:
        file.write(likes("inserted"))
        for at in range(0, len(rows["users"]), batch):
            file.write("BEGIN;\n")
            for table in TABLES:
                values = ",".join(f"({literals(row)})" for row in rows[table][at:at + batch])
                file.write(f"INSERT INTO inserted_{table} VALUES {values};\n")
            file.write("COMMIT;\n")
    with copies.open("w") as file:
        file.write(likes("copied") + "BEGIN;\n")
        for table in TABLES:
            file.write(f"COPY copied_{table} FROM STDIN;\n")
            file.writelines(f"{row}\n" for row in rows[table])
            file.write("\\.\n")
        file.write("COMMIT;\n")
    return inserts, copies


def likes(prefix):
    return "".join(f"CREATE TABLE {prefix}_{table} (LIKE user_service.{table} INCLUDING ALL);\n" for table in TABLES)


def literals(row):
    """The fields of a line of COPY; the rig's users have nothing to escape."""
    return ",".join("NULL" if field == "\\N" else f"'{field}'" for field in row.split("\t"))


def tool(name):
    return max(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))


class Database:
    def __init__(self, directory, port):
        self.directory, self.port = directory, port

    def sql(self, text):
        return machine.run([tool("psql"), *self.at(), "-Atqc", text, "postgres"])

    def load(self, script):
        """Seconds that psql takes for a file of SQL."""
        began = time.monotonic()
        machine.run([tool("psql"), *self.at(), "-q", "-v", "ON_ERROR_STOP=1", "-f", script, "postgres"])
        return time.monotonic() - began

    def at(self):
        return ["-h", "127.0.0.1", "-p", self.port, "-U", "bench"]

    def pgbench(self, script, clients, seconds):
        """Transactions a second of a script, its statements prepared."""
        file = self.directory / "script"
        file.write_text(script)
        said = machine.run([tool("pgbench"), *self.at(), "--no-vacuum", "--protocol=prepared", "--file", file,
                            "--client", clients, "--jobs", 2, "--time", seconds, "postgres"])
        return float(re.search(r"tps = ([\d.]+)", said)[1])


@contextmanager
def database():
    directory = machine.scratch(on_disk=True)
    owner = {"user": NOBODY, "group": NOBODY} if os.geteuid() == 0 else {}
    if owner:
        os.chown(directory, NOBODY, NOBODY)
    port = machine.port()
    machine.run([tool("initdb"), "-D", directory / "data", "-U", "bench", "--auth=trust", "--locale=C",
                 "--encoding=UTF8"], cwd=directory, **owner)
    server = subprocess.Popen(
        [tool("postgres"), "-D", directory / "data", "-p", str(port), "-c", "listen_addresses=127.0.0.1",
         "-c", "unix_socket_directories=", "-c", "max_connections=200", "-c", "shared_buffers=256MB"],
        cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **owner)
    try:
        while subprocess.run([tool("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)], check=False).returncode:
            if server.poll() is not None:
                raise RuntimeError(f"PostgreSQL has ended: {server.returncode}")
            time.sleep(0.05)
        yield Database(directory, port)
    finally:
        server.send_signal(2)
        server.wait()
