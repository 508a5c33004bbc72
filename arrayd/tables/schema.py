"""The schema of the tables: one table of the patent, one table here."""

from __future__ import annotations

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE array (serial TEXT NOT NULL)",
        """CREATE TABLE reservations (
            identity TEXT PRIMARY KEY, -- of the volume, as hosts see it
            type INTEGER NOT NULL      -- SPC-5, table 55; 0 when nothing is reserved
        ) WITHOUT ROWID""",
        """CREATE TABLE registrations (
            identity TEXT NOT NULL REFERENCES reservations,
            initiator_port TEXT NOT NULL,
            port INTEGER NOT NULL,     -- relative target port identifier
            key TEXT NOT NULL,         -- 16 hexadecimal digits: SQLite has no unsigned 64-bit integers
            holder INTEGER NOT NULL,   -- 1: holds the reservation
            PRIMARY KEY (identity, initiator_port, port)
        ) WITHOUT ROWID""",
    ),
    (
        """CREATE TABLE volumes (         -- made by command; those of the configuration are not here
            name TEXT PRIMARY KEY,
            settings TEXT NOT NULL       -- JSON: what `volumes.NAME` of the configuration would say
        ) WITHOUT ROWID""",
        """CREATE TABLE luns (            -- figure 3, rows made by command
            lun INTEGER PRIMARY KEY,
            settings TEXT NOT NULL       -- JSON: what `luns.N` of the configuration would say
        )""",
        """CREATE TABLE connections (     -- figure 36, rows made by command
            name TEXT PRIMARY KEY,       -- of the array
            address TEXT                 -- host:port; NULL: that array dials
        ) WITHOUT ROWID""",
        """CREATE TABLE command_devices ( -- figure 5, rows made by command: those of other arrays
            array TEXT NOT NULL,
            lun INTEGER NOT NULL,        -- of the virtual volume that leads there
            PRIMARY KEY (array, lun)
        ) WITHOUT ROWID""",
        """CREATE TABLE monitors (        -- what this array has others asked for again and again
            name TEXT PRIMARY KEY,
            settings TEXT NOT NULL       -- JSON
        ) WITHOUT ROWID""",
        """CREATE TABLE commands (        -- that change something: taken, and their answers
            host TEXT NOT NULL,          -- identification number, all three in hexadecimal digits: 16 each
            epoch TEXT NOT NULL,
            counter TEXT NOT NULL,
            process INTEGER NOT NULL,
            time REAL NOT NULL,          -- when it was taken or has ended, in seconds since 1970
            device TEXT,                 -- the command device and slot it was written to, if it was
            slot INTEGER,
            result INTEGER,              -- NULL: not ended
            edited BLOB,
            PRIMARY KEY (host, epoch, counter)
        ) WITHOUT ROWID""",
        """CREATE TABLE command_hosts (   -- below its mark a host's commands are forgotten, and refused
            host TEXT PRIMARY KEY,
            epoch TEXT NOT NULL,
            counter TEXT NOT NULL,
            time REAL NOT NULL           -- when it was last heard of
        ) WITHOUT ROWID""",
        """CREATE TABLE events (
            number INTEGER PRIMARY KEY,
            time REAL NOT NULL,          -- seconds since 1970
            severity TEXT NOT NULL,      -- info, warning, error
            kind TEXT NOT NULL,
            text TEXT NOT NULL,
            details TEXT NOT NULL        -- JSON
        )""",
    ),
)
"""What takes the schema from each version to the next; the version is SQLite's user_version."""
