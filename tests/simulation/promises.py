"""What a volume promises of the blocks that hosts write to it, and whether what is read keeps it.

Each block that is written says of which volume, block and write it is, so that one that nobody sent is known for what
it is. For each block there are two sets of writes: those that a read may find *now*, and those that a read may find
after a power loss. A write that was answered is the only one there may be, until another is sent; a write of which
nobody knows what became of it may be there or not, from then on; a flush leaves nothing that is older than it. What is
read narrows the sets: nothing goes back.

Writes to one block never overlap in time, but with those of which nobody knows.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from struct import Struct
from typing import NamedTuple

from tests.simulation.world import Violated

BLOCK_BYTES = 512
HEAD = Struct(">8sIIQ")
"""Magic, checksum of the volume's name, block, number of the write."""
MAGIC = b"simblock"
CRC = Struct(">I")
ROOM = BLOCK_BYTES - CRC.size
NOTHING = 0
"""The write before the first: zeros."""


def stamp(volume: str, lba: int, write: int) -> bytes:
    """What write number `write` puts into block `lba`."""
    if write == NOTHING:
        return bytes(BLOCK_BYTES)
    head = HEAD.pack(MAGIC, zlib.crc32(volume.encode()), lba, write)
    data = (head * (BLOCK_BYTES // HEAD.size + 1))[:ROOM]
    return data + CRC.pack(zlib.crc32(data))


class Block:
    """The writes that may be found in one block, in their order: now, and after a power loss. Lists are replaced, not
    changed."""

    __slots__ = ("after_power_loss", "now")

    def __init__(self) -> None:
        self.now = [NOTHING]
        self.after_power_loss = [NOTHING]


class Sent(NamedTuple):
    """A write that was sent: its number, where, and in which era: between which power losses."""

    number: int
    lbas: range
    data: bytes
    era: int


class Flush(NamedTuple):
    """A flush that was sent: what was there then."""

    last: int
    blocks: dict[int, list[int]]
    era: int


class Promise:
    """One volume, of `size` blocks."""

    def __init__(self, volume: str, size: int) -> None:
        self.volume = volume
        self.size = size
        self.last = NOTHING
        """Number of the last write."""
        self.power_lost_at = NOTHING
        self.era = 0
        self._blocks: dict[int, Block] = {}
        self.reads = 0
        self.answered = 0

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

    def write(self, lbas: range) -> Sent:
        """A write is sent."""
        self.last += 1
        for _, block in self._of(lbas):
            block.now = [*block.now, self.last]
            block.after_power_loss = [*block.after_power_loss, self.last]
        data = b"".join(stamp(self.volume, lba, self.last) for lba in lbas)
        return Sent(self.last, lbas, data, self.era)

    def was_answered(self, sent: Sent, durable: bool) -> None:
        """It was carried out; `durable`: with FUA, or to a volume without a cache. If power was lost meanwhile, one
        that is not durable may have been carried out before, and be lost: a unit attention says so to hosts."""
        self.answered += 1
        write = sent.number
        if sent.era != self.era and not durable:
            return
        for _, block in self._of(sent.lbas):
            block.now = [each for each in block.now if each >= write]
            if durable:
                block.after_power_loss = [each for each in block.after_power_loss if each >= write]

    def flush(self) -> Flush:
        """A flush is sent."""
        return Flush(self.last, {lba: block.now for lba, block in self._blocks.items()}, self.era)

    def was_flushed(self, flush: Flush) -> None:
        """It was carried out."""
        if flush.era != self.era:
            return
        for lba, there in flush.blocks.items():
            block = self._blocks[lba]
            if block.after_power_loss != there:
                left = [each for each in block.after_power_loss if each > flush.last or each in there]
                block.after_power_loss = left

    def lost_power(self) -> None:
        """The machine lost power, or a sync has failed and the array was started again."""
        self.power_lost_at = self.last
        self.era += 1
        for block in self._blocks.values():
            block.now = block.after_power_loss

    def was_read(self, lbas: range, data: bytes, era: int) -> None:
        """A read that was sent in `era` and met no write under way has found `data`. Raises Violated."""
        if era != self.era:
            return  # what it found may have been lost since
        self.reads += 1
        if len(data) != len(lbas) * BLOCK_BYTES:
            raise Violated(f"{self.volume}: {len(data)} bytes came for {len(lbas)} blocks")
        for lba, block in self._of(lbas):
            at = (lba - lbas.start) * BLOCK_BYTES
            found = self._number(lba, data[at : at + BLOCK_BYTES])
            if found not in block.now:
                raise Violated(
                    f"volume {self.volume}, block {lba}: write {found} was read, where only {block.now} may be: "
                    + ("an acknowledged write is lost" if found < max(block.now) else "a write that was never sent")
                )
            block.now = [each for each in block.now if each >= found]
            if found <= self.power_lost_at:
                block.after_power_loss = [
                    each for each in block.after_power_loss if each == found or each > self.power_lost_at
                ]  # fmt: skip

    def _number(self, lba: int, data: bytes) -> int:
        """The write that a block is of. Raises Violated."""
        if not any(data):
            return NOTHING
        magic, _volume, _lba, number = HEAD.unpack_from(data)
        if magic != MAGIC or not 0 < number <= self.last or data != stamp(self.volume, lba, number):
            raise Violated(f"volume {self.volume}, block {lba}: nobody wrote this: {data[: HEAD.size].hex()}")
        return int(number)
