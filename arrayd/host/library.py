"""The library, by the names that a host's programs import from `arrayd.host`."""

from arrayd.commands.results import Result
from arrayd.host.answers import Command, Ended
from arrayd.host.failure import CommandFailed
from arrayd.host.host import Host
from arrayd.host.paths import PathTable
from arrayd.host.way import Way

__all__ = ["Command", "CommandFailed", "Ended", "Host", "PathTable", "Result", "Way"]
