"""What survives a restart besides block data, in SQLite: one table of the patent, one table here.

A room says by a Protocol what it wants kept, and a class here keeps it; a class that answers at once does so from what
it read when the tables were opened.
"""

from arrayd.tables.changes import TablesError, Work
from arrayd.tables.commands import CommandRow, CommandTable, MarkRow
from arrayd.tables.database import Tables
from arrayd.tables.events import EventRow, EventTable
from arrayd.tables.monitors import MonitorTable
from arrayd.tables.schema import MIGRATIONS

__all__ = [
    "MIGRATIONS",
    "CommandRow",
    "CommandTable",
    "EventRow",
    "EventTable",
    "MarkRow",
    "MonitorTable",
    "Tables",
    "TablesError",
    "Work",
]
