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
    (
        # What is unique by an index, not by a constraint, a later version may change without copying the table: a
        # second leg of a group (three sites) is a row of its own, with the name and the volumes of the first.
        """CREATE TABLE consistency_groups ( -- figure 10: what the pairs of a group have in common
            id TEXT PRIMARY KEY,         -- the same on both sides: 32 hexadecimal digits
            name TEXT NOT NULL,
            ctg INTEGER NOT NULL,        -- CTG number, this array's own
            journal TEXT,                -- this side's journal volume; NULL: a group without one
            peer TEXT NOT NULL,          -- the other array, and its serial number
            peer_serial TEXT NOT NULL,
            peer_journal INTEGER,        -- LUN of the other side's journal
            mode TEXT NOT NULL,          -- async
            pace INTEGER NOT NULL,       -- of a copy, 1 to 15
            driver TEXT NOT NULL,        -- who drives figure 16: arrays, host
            generation INTEGER NOT NULL, -- one more at each start of a copy, swap and takeover
            consistent INTEGER NOT NULL, -- 1: the S-VOLs are a point of the group's writes, or lead back to one
            epoch TEXT NOT NULL,         -- of the journal, in hexadecimal digits: 16
            restored TEXT NOT NULL,      -- positions: sequence and byte, 16 hexadecimal digits each
            acknowledged TEXT NOT NULL
        ) WITHOUT ROWID""",
        "CREATE UNIQUE INDEX one_group_a_name ON consistency_groups (name)",
        "CREATE UNIQUE INDEX one_group_a_ctg ON consistency_groups (ctg)",
        "CREATE UNIQUE INDEX one_group_a_journal ON consistency_groups (journal)",
        """CREATE TABLE pairs (           -- figure 10, rows of this side
            id TEXT NOT NULL REFERENCES consistency_groups,
            number INTEGER NOT NULL,     -- in the group; the same on both sides
            name TEXT NOT NULL,
            volume TEXT NOT NULL,        -- of this array
            peer_lun INTEGER NOT NULL,   -- on the other array, and the identity of the volume there
            peer_volume TEXT NOT NULL,
            state TEXT NOT NULL,         -- side, status and kind: a name of arrayd.replication.statuses.State
            since REAL NOT NULL,         -- when it got this state, in seconds since 1970
            error TEXT NOT NULL,         -- why it is PSUE; empty otherwise
            copied INTEGER,              -- bytes that the initial copy need not copy again; NULL: it has ended
            PRIMARY KEY (id, number)
        ) WITHOUT ROWID""",
        "CREATE UNIQUE INDEX one_pair_a_name ON pairs (id, name)",
        "CREATE UNIQUE INDEX one_pair_a_volume ON pairs (volume)",
        """CREATE TABLE epochs (
            last TEXT NOT NULL           -- the greatest that a journal of this array ever had: 16 hexadecimal digits
        )""",
        "INSERT INTO epochs VALUES ('0000000000000000')",
    ),
    (
        "ALTER TABLE pairs DROP COLUMN copied",
        # 1: a P-VOL that lacks what hosts were answered, which is in the journal
        "ALTER TABLE pairs ADD COLUMN unsynced INTEGER NOT NULL DEFAULT 0",
    ),
    (
        # bytes a second that a copy has at the most; NULL: no limit
        "ALTER TABLE consistency_groups ADD COLUMN copy_rate INTEGER",
        # 1: a P-VOL that was suspended in COPY: the other side has marked what was left to be copied
        "ALTER TABLE pairs ADD COLUMN uncopied INTEGER NOT NULL DEFAULT 0",
    ),
    (
        # never, data, status: when P-VOLs of a synchronous group refuse hosts' writes
        "ALTER TABLE consistency_groups ADD COLUMN fence TEXT NOT NULL DEFAULT 'never'",
    ),
)
"""What takes the schema from each version to the next; the version is SQLite's user_version."""
