"""The log: structlog lines on standard error, for people or as JSON.

The event loop must not wait for whoever reads the log, nor a peer fill the disk with it: a line that standard error
would not take at once is dropped, and so are lines past a rate; the next line that goes out says how many were.
What came from the network is shown cut and without control characters.
"""

import datetime
import os
import select
import time
from collections.abc import Callable
from typing import Any, Literal, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

LINE_BYTES_MAX = select.PIPE_BUF
"""poll(2) promises room for so many bytes, and a pipe takes them whole."""
FIELD_CHARS_MAX = 256
EXCEPTION_CHARS_MAX = 2048
"""Of a traceback the end is kept."""
LINES_PER_SECOND_MAX = 500

STANDARD_ERROR = 2

Level = Literal["debug", "info", "warning", "error", "critical"]

_LEVELS: dict[Level, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def get_logger(room: str) -> FilteringBoundLogger:
    """A logger whose lines carry `room`. Cheap to call at import: what `configure` sets applies to it whenever set."""
    return cast(FilteringBoundLogger, structlog.get_logger(room=room))


def configure(
    level: Level = "info",
    json: bool = False,
    descriptor: int = STANDARD_ERROR,
    clock: Callable[[], float] = time.time,
) -> None:
    """Sets where and how the whole process logs. `clock` is the wall clock, in seconds since the epoch."""
    output = LineOutput(descriptor, json, clock)
    structlog.configure(
        processors=[
            output.admit,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            output.stamp,
            bound_fields,
            output.render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: output,
        cache_logger_on_first_use=False,
    )


class LineOutput:
    """Where the lines go: a file descriptor that is never waited for."""

    def __init__(self, descriptor: int, json: bool, clock: Callable[[], float]) -> None:
        self._descriptor = descriptor
        self._clock = clock
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._second = 0
        self._lines = 0
        self._dropped = 0
        if json:
            self._renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False)
        else:
            self._renderer = structlog.dev.ConsoleRenderer(
                colors=os.isatty(descriptor), exception_formatter=structlog.dev.plain_traceback
            )

    def admit(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """Processor: drops the event when it comes too soon after others, or nobody would take it."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines > LINES_PER_SECOND_MAX or not self._has_room():
            self._dropped += 1
            raise structlog.DropEvent
        if self._dropped:
            event["lines_dropped"] = self._dropped
            self._dropped = 0
        return event

    def _has_room(self) -> bool:
        try:
            ready = self._poll.poll(0)
        except OSError:
            return False
        return bool(ready) and bool(ready[0][1] & select.POLLOUT)

    def stamp(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """Processor: adds the time of day, UTC."""
        now = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC)
        event["timestamp"] = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return event

    def render(self, logger: WrappedLogger, method: str, event: EventDict) -> str:
        """Processor: the event as one line; fields that make it too long give way."""
        line: str = self._renderer(logger, method, dict(event))
        if len(line.encode()) < LINE_BYTES_MAX:
            return line
        kept = {key: event[key] for key in ("timestamp", "level", "event") if key in event}
        shortened: str = self._renderer(logger, method, {**kept, "cut": True})
        return shortened

    def write(self, line: str) -> None:
        """One line, without its end. A reader that went away is not an error."""
        try:
            os.write(self._descriptor, line.encode() + b"\n")
        except OSError:
            self._dropped += 1

    debug = info = warning = error = critical = msg = write


def bound_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Processor: every field a number, a truth value or a short printable text."""
    for key, value in event.items():
        if value is None or isinstance(value, bool | int | float):
            continue
        text = value if isinstance(value, str) else str(value)
        if key == "exception":
            event[key] = "\n".join(map(_printable, text[-EXCEPTION_CHARS_MAX:].split("\n")))
            continue
        if len(text) > FIELD_CHARS_MAX:
            text = text[:FIELD_CHARS_MAX] + "…"
        event[key] = _printable(text)
    return event


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


configure(level="warning")
