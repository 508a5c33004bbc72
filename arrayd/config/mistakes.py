"""What is wrong with a configuration: `FILE: key.path: VALUE: expected …`, one line a mistake, never with a secret."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

KeyPath = tuple[str | int, ...]
"""Where a value stands in the file: keys of mappings, indexes of lists."""

_IN_URL = re.compile(r"(://[^%:@/]*)[%:].*(?=@)", re.DOTALL)
_AFTER_USER = re.compile(r"%.*(?=@)|%.*", re.DOTALL)
"""Where a secret stands in `iscsi://user%secret@host/…`, in the form that other URLs have, and in a broken one."""

SHOWN_VALUE_CHARS = 120
"""A longer value is cut in a message."""

CHAP_KEYS_SHOWN = frozenset({"user", "secret_file"})
"""Below a CHAP section only these keys' values are shown: someone may have written the secret itself."""


class Mistake(NamedTuple):
    """One thing wrong in the file."""

    path: KeyPath
    value: object
    expected: str
    """Continues "expected "."""


class Missing:
    """Stands for the value of a key that is not there."""

    def __repr__(self) -> str:
        return "missing"


MISSING = Missing()


class ConfigError(Exception):
    """The configuration cannot be used; `lines` says why, one line a mistake."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines: list[str] = list(lines)
        super().__init__("\n".join(self.lines))

    @classmethod
    def of(cls, file: Path, mistakes: Iterable[Mistake]) -> "ConfigError":
        """The error for these mistakes in this file."""
        return cls(f"{file}: {line_of(mistake)}" for mistake in mistakes)


def dotted(path: KeyPath) -> str:
    """A path as a user reads it: `iscsi.initiators[0].name`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{_printable(part)}"
    return text.removeprefix(".") or "(file)"


def line_of(mistake: Mistake) -> str:
    """What is told of it, without the file."""
    return f"{dotted(mistake.path)}: {_shown(mistake.path, mistake.value)}: expected {mistake.expected}"


def _shown(path: KeyPath, value: object) -> str:
    """A value in a message: short, on one line, and nothing that may be a secret."""
    if value is MISSING:
        return repr(value)
    if value is None:
        return "(nothing)"
    if isinstance(value, dict):
        return "(a mapping)"
    if isinstance(value, list | tuple):
        return "(a list)"
    if _may_be_secret(path):
        return "(hidden)"
    if isinstance(value, bool):
        return str(value).lower()
    return _printable(str(value))


def _may_be_secret(path: KeyPath) -> bool:
    last = str(path[-1]) if path else ""
    below_chap = any(isinstance(part, str) and "chap" in part for part in path)
    named_so = any(word in last.lower() for word in ("secret", "password", "passwd", "token"))
    return (below_chap or named_so) and last not in CHAP_KEYS_SHOWN


def _printable(text: str) -> str:
    text = _without_secret(text)
    if len(text) > SHOWN_VALUE_CHARS:
        text = text[:SHOWN_VALUE_CHARS] + "…"
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text) or '""'


def _without_secret(text: str) -> str:
    """`iscsi://user%secret@host/…`, in whatever place it was written, and however wrong, without the secret."""
    if "@" not in text and "://" not in text:
        return text
    return _AFTER_USER.sub("%(hidden)", _IN_URL.sub(r"\1%(hidden)", text))
