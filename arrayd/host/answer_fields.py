"""JSON objects that an array answers with, whose fields are taken one by one, each as what it must be.

An array is not trusted to be right: whatever is not as it must be is a mistake that names the place. What an array does
not know it leaves out, or it is null.
"""

from __future__ import annotations

from collections.abc import Callable
from string import hexdigits
from typing import Any, TypeVar

from arrayd.config.mistakes import MISSING, KeyPath, Mistake, line_of

TEXT_CHARACTERS_MAX = 32
"""Of a name or a serial number."""
ANSWER = "answer"
"""What a mistake's place begins with."""
ERROR_CHARACTERS_MAX = 200
"""Of the reason why a pair is PSUE; what is longer is cut."""
ID_CHARACTERS = 32
"""Of a group's id: 16 bytes in hexadecimal."""
SECONDS_MAX = float(1 << 40)
"""Of a time, and of a lag."""
NUMBER_MAX = (1 << 64) - 1
"""Of what is counted: a sequence number, a generation, blocks."""

T = TypeVar("T")


class NotAStatus(ValueError):
    """An answer that is no answer to `pair-status`: the text says where, on one line."""


def wrong(where: KeyPath, value: object, expected: str) -> NotAStatus:
    """What is raised where something is not as it must be."""
    return NotAStatus(line_of(Mistake(where, value, expected)))


class Fields:
    """A JSON object whose fields are taken one by one, each as what it must be. All raise NotAStatus."""

    def __init__(self, where: KeyPath, value: object) -> None:
        if not isinstance(value, dict):
            raise wrong(where, value, "a JSON object")
        self._where = where
        self._value: dict[str, Any] = value

    def text(self, key: str, most: int = TEXT_CHARACTERS_MAX) -> str:
        """Printable text that is not empty."""
        value = self._taken(key)
        if isinstance(value, str) and 0 < len(value) <= most and value.isprintable():
            return value
        raise self._mistake(key, f"1 to {most} printable characters")

    def text_or_none(self, key: str, most: int = TEXT_CHARACTERS_MAX) -> str | None:
        """The same; empty text is none."""
        return None if self._value.get(key) in (None, "") else self.text(key, most)

    def reason_or_none(self, key: str) -> str | None:
        """Any text, as one printable line: a system's own words may be in it."""
        value = self._value.get(key)
        if value is None:
            return None
        if isinstance(value, str):
            return "".join(char if char.isprintable() else " " for char in value[:ERROR_CHARACTERS_MAX])
        raise self._mistake(key, "text")

    def id_or_none(self, key: str) -> str | None:
        """16 bytes in hexadecimal."""
        value = self._value.get(key)
        if value is None or (isinstance(value, str) and len(value) == ID_CHARACTERS and set(value) <= set(hexdigits)):
            return value
        raise self._mistake(key, f"{ID_CHARACTERS} hexadecimal digits")

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self._taken(key)
        if isinstance(value, bool):
            return value
        raise self._mistake(key, "true or false")

    def flag_or_none(self, key: str) -> bool | None:
        """The same, or nothing."""
        return None if self._value.get(key) is None else self.flag(key)

    def seconds_or_none(self, key: str) -> float | None:
        """A number, with or without a fraction, 0 to SECONDS_MAX."""
        value = self._value.get(key)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= SECONDS_MAX:
            return float(value)
        raise self._mistake(key, "seconds, 0 or more")

    def number(self, key: str, most: int = NUMBER_MAX) -> int:
        """A whole number, 0 to `most`."""
        value = self._taken(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
            return value
        raise self._mistake(key, f"a whole number, 0 to {most}")

    def number_or_none(self, key: str, most: int = NUMBER_MAX) -> int | None:
        """The same, or nothing."""
        return None if self._value.get(key) is None else self.number(key, most)

    def one_of(self, key: str, known: tuple[str, ...]) -> str:
        """One of these texts."""
        value = self._taken(key)
        if isinstance(value, str) and value in known:
            return value
        raise self._mistake(key, f"one of {', '.join(known)}")

    def one_of_or_none(self, key: str, known: tuple[str, ...]) -> str | None:
        """The same, or nothing."""
        return None if self._value.get(key) is None else self.one_of(key, known)

    def several(self, key: str, most: int, parsed: Callable[[Fields], T]) -> tuple[T, ...]:
        """A list of objects, at most so many."""
        value = self._taken(key)
        if not isinstance(value, list) or len(value) > most:
            raise self._mistake(key, f"a list, at most {most} long")
        return tuple(parsed(Fields((*self._where, key, number), each)) for number, each in enumerate(value))

    def several_or_none(self, key: str, most: int, parsed: Callable[[Fields], T]) -> tuple[T, ...]:
        """The same; nothing is an empty list."""
        return () if self._value.get(key) is None else self.several(key, most, parsed)

    def lists(self, key: str, most: int, length: int) -> list[list[int]]:
        """A list of lists of so many whole numbers, or true and false, at most so many of them."""
        value = self._taken(key)
        if not isinstance(value, list) or len(value) > most:
            raise self._mistake(key, f"a list, at most {most} long")
        for each in value:
            if not isinstance(each, list) or len(each) != length or not all(_whole(number) for number in each):
                raise wrong((*self._where, key), each, f"{length} whole numbers, 0 to {NUMBER_MAX}")
        return value

    def one_or_none(self, key: str, parsed: Callable[[Fields], T]) -> T | None:
        """One object."""
        value = self._value.get(key)
        return None if value is None else parsed(Fields((*self._where, key), value))

    def _taken(self, key: str) -> object:
        return self._value.get(key, MISSING)

    def _mistake(self, key: str, expected: str) -> NotAStatus:
        return wrong((*self._where, key), self._taken(key), expected)


def _whole(value: object) -> bool:
    return isinstance(value, int) and 0 <= value <= NUMBER_MAX
