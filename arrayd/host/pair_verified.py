"""What an array says of a verify of a group, in the edited data of `pair-status` and `pair-verify`, read strictly.

{"id": 1795857760500000, "state": "differs", "begun": 1795857760.5, "pair": null, "done": 1048576, "left": 0,
 "rate": null, "seconds_left": 0.0, "differing": 4096, "mended": 0, "damages": [{"text": "far: ..."}], "trouble": ""}
"""

from __future__ import annotations

from dataclasses import dataclass

from arrayd.host.answer_fields import ANSWER, Fields

RUNNING, SAME, DIFFERS, MENDED, STOPPED, FAILED = STATES = (
    "running",
    "same",
    "differs",
    "mended",
    "stopped",
    "failed",
)
DAMAGES_MAX = 64
LISTED_MAX = 1024
"""Ranges in one answer."""


@dataclass(frozen=True, slots=True)
class Verify:
    """A verify, as the side with the S-VOLs tells of it. Numbers are bytes; what is not known is None."""

    id: int
    state: str
    """One of STATES."""
    done: int | None
    left: int | None
    rate: int | None
    """A second, in the last while."""
    seconds_left: float | None
    differing: int
    """What was found, what is mended among it."""
    mended: int
    damages: tuple[str, ...]
    """What is not whole in the journals of both sides."""
    trouble: str | None
    """Why it does not go on at the moment, or has ended."""

    @property
    def percent(self) -> int | None:
        """How much of it is done."""
        if self.done is None or self.left is None:
            return None
        return 100 * self.done // (self.done + self.left) if self.left else 100


@dataclass(frozen=True, slots=True)
class Found:
    """A range that differed, of the pair of this number, in bytes."""

    number: int
    offset: int
    length: int
    mended: bool


def verify_of(fields: Fields) -> Verify:
    """One verify. Raises NotAStatus."""
    return Verify(
        id=fields.number("id"),
        state=fields.one_of("state", STATES),
        done=fields.number_or_none("done"),
        left=fields.number_or_none("left"),
        rate=fields.number_or_none("rate"),
        seconds_left=fields.seconds_or_none("seconds_left"),
        differing=fields.number("differing"),
        mended=fields.number("mended"),
        damages=fields.several("damages", DAMAGES_MAX, lambda each: each.reason_or_none("text") or ""),
        trouble=fields.reason_or_none("trouble") or None,
    )


def begun_of(edited: object) -> Verify:
    """The answer to pair-verify. Raises NotAStatus."""
    found = Fields((ANSWER,), edited).one_or_none("verify", verify_of)
    return found if found is not None else verify_of(Fields((ANSWER, "verify"), {}))


def ranges_of(edited: object) -> tuple[list[Found], int | None, bool]:
    """The answer to pair-verify-found: ranges, the number to ask on with, and whether there were more than are
    remembered. Raises NotAStatus."""
    fields = Fields((ANSWER,), edited)
    found = fields.lists("ranges", LISTED_MAX, 4)
    ranges = [Found(number, offset, length, bool(mended)) for number, offset, length, mended in found]
    return ranges, fields.number_or_none("following"), fields.flag_or_none("more") or False
