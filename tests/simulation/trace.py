"""What happened in a run, line by line: the same for the same seed, byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from tests.simulation.doors import LIFE


class Lines:
    """The lines; `now()` is the virtual time in seconds, `shown` takes each line as it comes."""

    def __init__(self, now: Callable[[], float], shown: Callable[[str], None] | None = None) -> None:
        self._now = now
        self._shown = shown
        self.lines: list[str] = []

    def note(self, who: str, what: str) -> None:
        """One line."""
        line = f"{self._now():11.6f} {who:<8} {what}"
        self.lines.append(line)
        if self._shown is not None:
            self._shown(line)

    def text(self) -> str:
        """All of them."""
        return "\n".join(self.lines) + "\n"


class Log:
    """Stands for where the arrays log to: their lines are lines of the trace. `told` has those that a checker looks at:
    by machine, event and its fields."""

    def __init__(self, lines: Lines, hide: str) -> None:
        self._lines = lines
        self._hide = hide
        """What names the folder of this run, which is another each time."""
        self.told: list[tuple[str, str, dict[str, Any]]] = []

    def configure(self) -> None:
        """From now on."""
        structlog.configure(
            processors=[self._take],
            wrapper_class=structlog.make_filtering_bound_logger(20),
            cache_logger_on_first_use=False,
        )

    def _take(self, _logger: object, method: str, event: Any) -> Any:
        life = LIFE.get(None)
        who = life.name if life is not None else "-"
        fields = {key: value for key, value in event.items() if key not in ("event", "room")}
        failure = fields.pop("exc_info", None)
        if failure is not None:
            error = failure if isinstance(failure, BaseException) else _current(failure)
            fields["error"] = repr(error)
        told = " ".join(f"{key}={value}" for key, value in fields.items()).replace(self._hide, "")
        self._lines.note(who, f"log {method}: {event['event']} {told}")
        if life is None or life.alive:
            self.told.append((who, event["event"], fields))
        raise structlog.DropEvent


def _current(failure: Any) -> object:
    """What `exc_info=True` means."""
    import sys

    return sys.exc_info()[1] if failure is True else failure


def running_time() -> float:
    """The virtual time."""
    return asyncio.get_running_loop().time()
