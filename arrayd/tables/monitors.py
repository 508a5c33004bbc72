"""What this array has others asked for again and again."""

from __future__ import annotations

import sqlite3

from arrayd.tables.changes import Work


class MonitorTable:
    """`monitors`; `rows` is what was there when the tables were opened: names, and settings as JSON text."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.rows: list[tuple[str, str]] = connection.execute("SELECT name, settings FROM monitors").fetchall()

    def put(self, name: str, settings: str) -> Work:
        """Keeps a monitor."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO monitors VALUES (?, ?)", (name, settings))

        return work

    def remove(self, name: str) -> Work:
        """Forgets a monitor."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM monitors WHERE name = ?", (name,))

        return work
