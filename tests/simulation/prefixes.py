"""The order of a group's writes, and volumes held against it: they are its writes 1 to N, for the N that is told.

An order begins anew with each epoch of a primary journal, on what its P-VOLs held then. It is what the journal was
given, by its own numbers. What a crash took from the end of a journal before it was committed is forgotten when another
write gets its number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from arrayd.replication.journal import Kind
from arrayd.replication.writes import Range
from tests.simulation.world import Violated


@dataclass(slots=True)
class Given:
    """A write of the group: with it `end` records have been stored; `data` is repeated over `extent` bytes. `before` is
    what its place held, until volumes have been held against the order."""

    end: int
    volume: int
    offset: int
    extent: int
    data: bytes
    before: bytes = b""

    @property
    def repeated(self) -> bytes:
        """What it puts into its place."""
        return self.data * (self.extent // len(self.data))


class Order:
    """One epoch's, of volumes by number."""

    def __init__(self) -> None:
        self.given: list[Given] = []
        self._images: list[bytearray] | None = None
        self._made = 0
        """So many of `given` are in the images."""
        self._again = False
        """Whether what it began on is to be looked at once more."""
        self.checked = False
        """Whether volumes have been held against it: then what it began on is fixed."""

    @property
    def last(self) -> int:
        """So many records the journal was given, at the most."""
        return self.given[-1].end if self.given else 0

    def begin(self, contents: Sequence[bytes]) -> None:
        """The volumes hold this now, with all that was given until now, or some of it."""
        if self._images is None or (self._again and not self.checked):
            self._again, self._made = False, 0
            images = [bytearray(each) for each in contents]
            for each in reversed(self.given):
                images[each.volume][each.offset : each.offset + len(each.before)] = each.before
            self._images = images

    def lost_power(self) -> None:
        """What was not durable when it began may be gone: what it began on is looked at once more, unless the other
        side has it already."""
        self._again = not self.checked

    def was_given(self, begin: int, given: Given) -> None:
        """The journal has taken a write as its records from `begin` on. Raises Violated."""
        while self.given and self.given[-1].end > begin:
            if len(self.given) <= self._made:
                raise Violated(f"record {self.given[-1].end} is given once more, and was restored")
            self.given.pop()
        self.given.append(given)

    def check(self, sequence: int, contents: Sequence[bytes], what: str) -> None:
        """The volumes are the writes up to `sequence`, which never goes back. Raises Violated."""
        images = self._images
        if images is None:
            if not sequence:
                return  # the side that was to lead has died before it did, and has given nothing
            raise Violated(f"{what}: {sequence} is told, of an order that has not begun")
        given, self.checked = self.given, True
        while self._made < len(given) and given[self._made].end <= sequence:
            each = given[self._made]
            images[each.volume][each.offset : each.offset + each.extent] = each.repeated
            self._made += 1
        there = given[self._made - 1].end if self._made else 0
        if there != sequence:
            raise Violated(f"{what}: {sequence} is told as restored, where only {there} may be the end of a write")
        check_same(contents, images, f"{what}: not the writes up to {sequence}")

    def check_led(self, stored: int, contents: Sequence[bytes], differing: Iterable[Range], what: str) -> None:
        """P-VOLs are what their journal says, which has the writes up to `stored`, but for what is told to differ: a
        crash may have taken the rest. Raises Violated."""
        if self._images is None or self._again:
            return
        led = [bytearray(each) for each in self._images]
        for each in self.given[self._made :]:
            if each.end <= stored:
                led[each.volume][each.offset : each.offset + each.extent] = each.repeated
        for number, offset, length in differing:
            led[number][offset : offset + length] = contents[number][offset : offset + length]
        check_same(contents, led, f"{what}: not the writes up to {stored}")


def check_same(contents: Sequence[bytes], wanted: Sequence[bytes | bytearray], what: str) -> None:
    """Each volume holds what is wanted. Raises Violated."""
    for number, (found, image) in enumerate(zip(contents, wanted, strict=True)):
        if found != image:
            differ = [at for at in range(0, len(image), 512) if found[at : at + 512] != image[at : at + 512]]
            blocks = ", ".join(str(at // 512) for at in differ[:8])
            raise Violated(f"{what}: volume {number} differs in {len(differ)} blocks: {blocks}")


def data_of(kind: Kind, data: bytes) -> bytes:
    """What a record of that kind repeats over its extent."""
    return b"\0" if kind in (Kind.UNMAP, Kind.ZEROS) else data
