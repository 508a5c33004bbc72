"""What a volume promises of the blocks that hosts write to it, and whether what is read keeps it.

Each block that is written says of which volume, block and write it is, so that one that nobody sent is known for what
it is. For each block there are two sets of writes: those that a read may find *now*, and those that a read may find
after a power loss. A write that was answered is the only one there may be, until another is sent; a write of which
nobody knows what became of it may be there or not, from then on; a flush leaves nothing that is older than it. What is
read narrows the sets: nothing goes back. Of writes that overlap in time and place, either may be the last.

A volume of a pair is not always a host's to write: it is `shut` while it is guarded, and what is sent then is never
answered as carried out; what hosts may read then, if they may, can be known (`Still`). When it is a host's again it may
hold what came from the other side (`rebase`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from tests.simulation.world import Violated

BLOCK_BYTES = 512
HEAD = Struct(">8sIIQ")
"""Magic, checksum of the volume's name, block, number of the write."""
MAGIC = b"simblock"
CRC = Struct(">I")
ROOM = BLOCK_BYTES - CRC.size
STAMPS_KEPT = 2048
NOTHING = 0
"""The write before the first: zeros."""


@lru_cache(STAMPS_KEPT)
def stamp(volume: str, lba: int, write: int) -> bytes:
    """What write number `write` puts into block `lba`."""
    if write == NOTHING:
        return bytes(BLOCK_BYTES)
    head = HEAD.pack(MAGIC, zlib.crc32(volume.encode()), lba, write)
    data = (head * (BLOCK_BYTES // HEAD.size + 1))[:ROOM]
    return data + CRC.pack(zlib.crc32(data))


class Work(Enum):
    """What a write puts into its blocks."""

    DATA = "WRITE"
    SAME = "WRITE SAME"
    """In all of them what the first one has."""
    ZEROS = "WRITE SAME of zeros"
    UNMAP = "UNMAP"


EMPTY = frozenset({Work.ZEROS, Work.UNMAP})


class Block:
    """The writes that may be found in one block, in their order: now, and after a power loss. Lists are replaced, not
    changed."""

    __slots__ = ("after_power_loss", "now")

    def __init__(self) -> None:
        self.now = [NOTHING]
        self.after_power_loss = [NOTHING]


class Sent(NamedTuple):
    """A write that was sent: its number, where, and in which era: between which power losses. `beside` are the numbers
    of those under way that it overlaps; `tenure` is how often the volume was shut or opened before, and `is_open`
    whether it was a host's."""

    number: int
    lbas: range
    data: bytes
    era: int
    work: Work = Work.DATA
    beside: frozenset[int] = frozenset()
    tenure: int = 0
    is_open: bool = True


class Writes:
    """All writes to the volumes of one name, on whichever array, by their numbers."""

    def __init__(self, volume: str) -> None:
        self.volume = volume
        self.last = NOTHING
        """Number of the last write."""
        self.sent: dict[int, tuple[Work, range]] = {}

    def content(self, number: int, lba: int) -> bytes:
        """What write `number` puts into a block."""
        work, lbas = self.sent.get(number, (Work.DATA, range(0)))
        if work in EMPTY:
            number = NOTHING
        return stamp(self.volume, lbas.start if work is Work.SAME else lba, number)

    def number(self, lba: int, data: bytes) -> int:
        """The write that a block is of; NOTHING for any that leaves zeros. Raises Violated."""
        if not any(data):
            return NOTHING
        magic, _volume, _lba, number = HEAD.unpack_from(data)
        if magic != MAGIC or not 0 < number <= self.last or data != self.content(number, lba):
            raise Violated(f"volume {self.volume}, block {lba}: nobody wrote this: {data[: HEAD.size].hex()}")
        return int(number)


class Flush(NamedTuple):
    """A flush that was sent: what was there then."""

    last: int
    blocks: dict[int, list[int]]
    era: int
    tenure: int = 0


class Still:
    """A volume that is shut and does not move: hosts read `data`, and nothing where that is None."""

    def __init__(self, data: bytes | None) -> None:
        self.data = data

    def check(self, volume: str, lbas: range, data: bytes) -> None:
        """This was read of these blocks. Raises Violated."""
        if self.data is None:
            raise Violated(f"volume {volume}: {lbas} was read, which is no state of the group")
        if data != self.data[lbas.start * BLOCK_BYTES : lbas.stop * BLOCK_BYTES]:
            raise Violated(f"volume {volume}: {lbas} was read, and is not what the volume stands at")


class Promise:
    """One volume, of `size` blocks; `writes` numbers those to it, and to others of its name."""

    def __init__(self, volume: str, size: int, writes: Writes | None = None) -> None:
        self.volume = volume
        self.size = size
        self.writes = writes or Writes(volume)
        self.power_lost_at = NOTHING
        """The last write before: what is older and was found since is durable."""
        self.restarted_at = NOTHING
        """The last write before what may be found was not what was answered: another power loss, or a failed sync."""
        self.era = 0
        self.is_open = True
        """Whether hosts may write to it, and what they read is theirs."""
        self.tenure = 0
        self.still: Still | None = None
        """While it is shut, if it does not move."""
        self.fault: Violated | None = None
        """What was found where only the array would have heard of it."""
        self._blocks: dict[int, Block] = {}
        self._uncertain: set[int] = set()
        """Blocks of which nobody knows what they hold after a power loss."""
        self._unknown: set[int] = set()
        """Of which power was lost since: what is found is right."""
        self._under_way: dict[int, range] = {}
        self.reads = 0
        self.answered = 0

    @property
    def last(self) -> int:
        """Number of the last write."""
        return self.writes.last

    def _of(self, lbas: Iterable[int]) -> Iterable[tuple[int, Block]]:
        for lba in lbas:
            block = self._blocks.get(lba)
            if block is None:
                block = self._blocks[lba] = Block()
            yield lba, block

    @property
    def written(self) -> list[int]:
        """Blocks that were ever written."""
        return sorted(self._blocks)

    # -- writes ------------------------------------------------------------------------------------------------------

    def write(self, lbas: range, work: Work = Work.DATA) -> Sent:
        """A write is sent."""
        self.writes.last += 1
        number = self.last
        self.writes.sent[number] = work, lbas
        for _, block in self._of(lbas):
            block.now = [*block.now, number]
            block.after_power_loss = [*block.after_power_loss, number]
        beside = frozenset(each for each, there in self._under_way.items() if overlap(there, lbas))
        self._under_way[number] = lbas
        some = lbas if work is Work.DATA else lbas[:1] if work is Work.SAME else ()
        data = b"".join(stamp(self.volume, lba, number) for lba in some)
        return Sent(number, lbas, data, self.era, work, beside, self.tenure, self.is_open)

    def ended(self, sent: Sent) -> None:
        """It is under way no more, whatever became of it."""
        self._under_way.pop(sent.number, None)

    def was_answered(self, sent: Sent, durable: bool) -> None:
        """It was carried out; `durable`: with FUA, or to a volume without a cache. If power was lost meanwhile, one
        that is not durable may have been carried out before, and be lost: a unit attention says so to hosts."""
        self.answered += 1
        if sent.tenure != self.tenure:
            return
        if not sent.is_open:
            self.fault = Violated(f"volume {self.volume}: write {sent.number} was taken where it may not be written")
            return
        if sent.era != self.era and not durable:
            return
        self._unknown.difference_update(sent.lbas)
        if durable:
            self._uncertain.difference_update(sent.lbas)
        for _, block in self._of(sent.lbas):
            block.now = _behind(block.now, sent)
            if durable:
                block.after_power_loss = _behind(block.after_power_loss, sent)

    def was_refused(self, sent: Sent) -> None:
        """It was not carried out, and never will be."""
        if sent.tenure == self.tenure:
            for _, block in self._of(sent.lbas):
                block.now = [each for each in block.now if each != sent.number]
                block.after_power_loss = [each for each in block.after_power_loss if each != sent.number]

    def flush(self) -> Flush:
        """A flush is sent."""
        return Flush(self.last, {lba: block.now for lba, block in self._blocks.items()}, self.era, self.tenure)

    def was_flushed(self, flush: Flush) -> None:
        """It was carried out."""
        if (flush.era, flush.tenure) != (self.era, self.tenure):
            return
        self._uncertain.clear()
        for lba, there in flush.blocks.items():
            block = self._blocks[lba]
            if block.after_power_loss is not there and block.after_power_loss != there:
                left = [each for each in block.after_power_loss if each > flush.last or each in there]
                block.after_power_loss = left

    def lost_power(self, power: bool = True) -> None:
        """The machine lost power, or a sync has failed and the array was started again: then what was written behind
        it is found, and is not durable."""
        self.restarted_at = self.last
        self.era += 1
        self._unknown |= self._uncertain
        if power:
            self.power_lost_at = self.last
            self._uncertain.clear()
        for block in self._blocks.values():
            block.now = block.after_power_loss

    def lost_syncs(self) -> None:
        """P-VOLs have left a journal that could not be read: what was durable in it alone may be gone."""
        self._uncertain.update(self._blocks)
        self.lost_power(power=False)

    # -- whose it is -------------------------------------------------------------------------------------------------

    def shut(self, still: Still | None = None) -> None:
        """Hosts' writes are refused from now on."""
        self.still = still
        if self.is_open:
            self.is_open = False
            self.tenure += 1

    def open(self) -> None:
        """They are taken again."""
        self.still = None
        if not self.is_open:
            self.is_open = True
            self.tenure += 1

    def rebase(self, data: bytes, durable: bool) -> None:
        """All of it holds this, `durable` or as long as there is power. Raises Violated for what nobody wrote."""
        self._uncertain = set() if durable else set(range(self.size))
        self._unknown.clear()
        for lba in range(self.size):
            number = self.writes.number(lba, data[lba * BLOCK_BYTES : (lba + 1) * BLOCK_BYTES])
            if number != NOTHING or lba in self._blocks:
                ((_, block),) = self._of((lba,))
                coming = [each for each, lbas in self._under_way.items() if lba in lbas]
                block.now = block.after_power_loss = [number, *coming]

    def check_all(self, data: bytes, what: str) -> None:
        """All of it is something that a read might find now. Raises Violated."""
        for lba, block in sorted(self._blocks.items()):
            self._candidates(lba, block, data[lba * BLOCK_BYTES : (lba + 1) * BLOCK_BYTES], what)

    # -- reads -------------------------------------------------------------------------------------------------------

    def was_read(self, lbas: range, data: bytes, era: int, tenure: int = 0, still: Still | None = None) -> None:
        """A read that was sent in `era`, while the volume stood `still`, and met no write under way has found `data`.
        Raises Violated."""
        if still is not None and still is self.still:
            still.check(self.volume, lbas, data)
        if era != self.era or tenure != self.tenure or not self.is_open:
            return  # what it found may have been lost since, or is another side's
        self.reads += 1
        if len(data) != len(lbas) * BLOCK_BYTES:
            raise Violated(f"{self.volume}: {len(data)} bytes came for {len(lbas)} blocks")
        for lba, block in self._of(lbas):
            at = (lba - lbas.start) * BLOCK_BYTES
            found = self._candidates(lba, block, data[at : at + BLOCK_BYTES], "was read")
            block.now = [each for each in block.now if each >= found[0]]
            if found[-1] <= self.power_lost_at:
                block.after_power_loss = [
                    each for each in block.after_power_loss if each in found or each > self.power_lost_at
                ]

    def _candidates(self, lba: int, block: Block, data: bytes, what: str) -> list[int]:
        """The writes that the block may be of, of those that may be there, in order. Raises Violated."""
        number = self.writes.number(lba, data)
        if lba in self._unknown and number <= self.restarted_at:  # a later write says nothing of what it was before
            self._unknown.discard(lba)
            later = [each for each in block.now if each > self.restarted_at]
            block.now = block.after_power_loss = [number, *later]
        content = self.writes.content
        found = [each for each in block.now if each == number or content(each, lba) == data]
        if not found:
            raise Violated(
                f"volume {self.volume}, block {lba}: write {number} {what}, where only {block.now} may be: "
                + ("an acknowledged write is lost" if number < max(block.now) else "a write that was never sent")
            )
        return found


def overlap(one: range, other: range) -> bool:
    """Whether they have a block in common."""
    return one.start < other.stop and other.start < one.stop


def _behind(numbers: list[int], sent: Sent) -> list[int]:
    """Those that may be there after `sent` was carried out."""
    return [each for each in numbers if each >= sent.number or each in sent.beside]
