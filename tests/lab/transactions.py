"""A program of its own, run by workload.py: commits transactions to SQLite databases in turn and says so after each.

usage: python transactions.py FIRST DATABASE...

Every number that it prints is a row whose transaction SQLite has committed, with what the file system was asked to
make durable by fsync. It goes on until it is killed or cannot write.
"""

import sqlite3
import sys
from itertools import count

PAYLOAD_BYTES = 2000
DATABASE_TIMEOUT_S = 30.0


def payload(number: int) -> bytes:
    """What row ``number`` holds; another for every row."""
    return number.to_bytes(8) * (PAYLOAD_BYTES // 8)


def commit_for_ever(first: int, *databases: str) -> None:
    """Insert rows ``first``, ``first + 1``, … each in a transaction of its own, and print each once it is committed:
    one in each database, and over again."""
    connections = [sqlite3.connect(each, timeout=DATABASE_TIMEOUT_S, isolation_level=None) for each in databases]
    for connection in connections:
        # EXTRA: the end of a transaction is that its journal is unlinked, and FULL does not make that durable.
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.execute("CREATE TABLE IF NOT EXISTS record (number INTEGER PRIMARY KEY, payload BLOB NOT NULL)")
    for number in count(first):
        connections[number % len(connections)].execute("INSERT INTO record VALUES (?, ?)", (number, payload(number)))
        print(number, flush=True)


if __name__ == "__main__":
    commit_for_ever(int(sys.argv[1]), *sys.argv[2:])
