"""What P-VOLs of synchronous pairs promised at one moment, against which other volumes are held, and of which writes
it is seen when they are answered."""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.promises import BLOCK_BYTES, NOTHING, Promise, Sent, Work
from tests.simulation.world import Violated


class Snapshot:
    """What a read of any block might have found at the moment when it is made, and what after a power loss then. Both
    have the writes that are under way."""

    def __init__(self, promise: Promise) -> None:
        self._promise = promise
        self._now = {lba: block.now for lba, block in promise._blocks.items()}
        self._after = {lba: block.after_power_loss for lba, block in promise._blocks.items()}
        self._unknown = frozenset(promise._unknown)
        self.uncertain = frozenset(promise._uncertain)
        self._restarted_at = promise.restarted_at

    def found(self, lba: int, data: bytes) -> list[int]:
        """Those of the writes that may be there that would leave this. Raises Violated."""
        writes = self._promise.writes
        found = [each for each in self._now.get(lba, [NOTHING]) if writes.content(each, lba) == data]
        return found or [writes.number(lba, data)]

    def after(self, lba: int) -> list[int]:
        """The writes that may be there after a power loss."""
        return self._after.get(lba, [NOTHING])

    def check(self, data: bytes, what: str, after_power_loss: bool = False) -> None:
        """All of a volume is something that it allows. Raises Violated."""
        promise = self._promise
        allowed = self._after if after_power_loss else self._now
        for lba in range(promise.size):
            block = data[lba * BLOCK_BYTES : (lba + 1) * BLOCK_BYTES]
            number = promise.writes.number(lba, block)
            numbers = allowed.get(lba, [NOTHING])
            if number in numbers or (after_power_loss and lba in self.uncertain):
                continue
            if lba in self._unknown and number <= self._restarted_at:
                continue
            if not any(promise.writes.content(each, lba) == block for each in numbers):
                raise Violated(f"volume {promise.volume}, block {lba}: {what}: write {number}, of {numbers}")


class MirroredPromise(Promise):
    """One that has it looked at whether writes that are answered are on the other side, too: `answering(sent, moment)`,
    with what `moment()` was when it was sent."""

    answering: Callable[[Sent, object], None]
    moment: Callable[[], object]

    def __init__(self, volume: str, size: int, writes: object) -> None:
        super().__init__(volume, size, writes)  # type: ignore[arg-type]
        self._moments: dict[int, object] = {}

    def write(self, lbas: range, work: Work = Work.DATA) -> Sent:
        """See Promise."""
        sent = super().write(lbas, work)
        self._moments[sent.number] = self.moment()
        return sent

    def ended(self, sent: Sent) -> None:
        """See Promise."""
        super().ended(sent)
        self._moments.pop(sent.number, None)

    def was_answered(self, sent: Sent, durable: bool) -> None:
        """See Promise."""
        super().was_answered(sent, durable)
        if sent.is_open and sent.tenure == self.tenure and sent.era == self.era:
            self.answering(sent, self._moments[sent.number])

    def was_found(self, data: bytes, before: Snapshot) -> None:
        """All of it holds this, which there may have been `before`: so nothing is lost. What the other side has is not
        durable for that."""
        self._unknown.clear()
        self._uncertain |= before.uncertain
        for lba, block in self._of(list(self._blocks)):
            found = before.found(lba, data[lba * BLOCK_BYTES : (lba + 1) * BLOCK_BYTES])
            coming = [each for each, lbas in self._under_way.items() if lba in lbas and each not in found]
            block.now = found + coming
            block.after_power_loss = before.after(lba) + coming

    def allows(self, lba: int, data: bytes) -> bool:
        """Whether a read might find this in a block now."""
        now, writes = self._blocks[lba].now, self.writes
        return writes.number(lba, data) in now or any(writes.content(each, lba) == data for each in now)

    @property
    def at_rest(self) -> bool:
        """Whether no write is under way."""
        return not self._under_way
