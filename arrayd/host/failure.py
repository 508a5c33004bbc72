"""Why a command has no edited data: the one exception that the library raises for it."""

from __future__ import annotations

from arrayd.commands.results import Result


class CommandFailed(Exception):
    """`result` says what became of the command (arrayctl exits with it), `reason` why, `at` the array that said so."""

    def __init__(self, result: int, reason: str, at: str = "") -> None:
        super().__init__(f"{at}: {reason}" if at else reason)
        self.result = result
        self.reason = reason
        self.at = at

    @property
    def name(self) -> str:
        """The result's name, or its number where a newer array has one that is not known here."""
        try:
            return Result(self.result).name
        except ValueError:
            return str(self.result)
