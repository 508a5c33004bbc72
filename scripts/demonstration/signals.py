"""Signals that end the demo, heeded where nothing is half done.

An exception at any moment, which is what a handler of its own would raise, may come between a process's start and the
line that notes it: nobody would end that process. So a signal is noted, and heeded between two lines of the story.
"""

from __future__ import annotations

import signal

EXIT_SIGNAL = 128
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_received: list[int] = []


def note() -> None:
    """From here on, signals wait for `heed`. What disturbs nothing goes on: system calls are begun again (PEP 475)."""
    for each in SIGNALS:
        signal.signal(each, lambda number, _frame: _received.append(number))


def heed() -> None:
    """Raises SystemExit for the first signal, once: tidying up is not disturbed."""
    if _received:
        first = _received[0]
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        _received.clear()
        raise SystemExit(EXIT_SIGNAL + first)
