"""How far a primary journal was stored, noted beside it: so a tail that is lost while the machine is up is missed.

A sync of the journal can fail, and the array be killed before anybody is told. The kernel takes the pages that it could
not write for clean and may drop them: then the next start finds fewer records than the P-VOLs have been handed. So
their end is noted before they are: in a store of its own, which is never synced, since what is noted lasts as long as
the machine is up. What a power loss takes is told by the activity log (`activity.py`).
"""

from __future__ import annotations

import asyncio
import mmap
from struct import Struct as Layout

from crc32c import crc32c

from arrayd.log import get_logger
from arrayd.replication.journal.regions import PAGE_BYTES
from arrayd.replication.stages import Stores
from arrayd.volumes.volume import Volume, VolumeError, finished

NOTE = Layout(">IQQ")
"""The first bytes of the store: a CRC32C of the rest, the journal's epoch, and how many records were ever stored."""
CRC = Layout(">I")

log = get_logger("replication")


class HighWater:
    """Of the journal of `epoch`, in the store `name`; `noted` is how many records it had, as far as was noted."""

    def __init__(self, stores: Stores, name: str, store: Volume, epoch: int, noted: int) -> None:
        self.noted = noted
        self._stores = stores
        self._name = name
        self._store = store
        self._epoch = epoch
        self._page = memoryview(mmap.mmap(-1, PAGE_BYTES))
        self._late: asyncio.Task[None] | None = None
        """What writes the store where that must wait."""

    @classmethod
    async def open(cls, stores: Stores, name: str, epoch: int) -> HighWater:
        """What the store `name` has of this epoch: nothing, if another one, or none. Raises VolumeError."""
        store = await stores.open(name)
        if store is None:
            store = await stores.create(name, PAGE_BYTES)
        page = memoryview(mmap.mmap(-1, PAGE_BYTES))
        try:
            await finished(store.read(0, page))
        except BaseException:
            await stores.close(name)
            raise
        crc, found, noted = NOTE.unpack_from(page)
        there = found == epoch and crc == crc32c(page[CRC.size : NOTE.size])
        return cls(stores, name, store, epoch, noted if there else 0)

    def note(self, records: int) -> None:
        """The journal has so many records, and no fewer than before."""
        if records == self.noted:
            return
        self.noted = records
        if self._late is None and not self._store.write_now(0, self._filled()):
            self._late = asyncio.get_running_loop().create_task(self._write())

    def _filled(self) -> memoryview:
        page = self._page
        NOTE.pack_into(page, 0, 0, self._epoch, self.noted)
        CRC.pack_into(page, 0, crc32c(page[CRC.size : NOTE.size]))
        return page

    async def _write(self) -> None:
        """Writes until the store has what was noted last."""
        noted = None
        try:
            while noted != self.noted:
                noted = self.noted
                await finished(self._store.write(0, memoryview(bytes(self._filled()))))
        except VolumeError as error:
            log.warning("end of the journal not noted", reason=str(error))
        finally:
            self._late = None

    async def close(self) -> None:
        """Nothing is noted any more; what is at work is waited for."""
        if self._late is not None:
            await asyncio.wait((self._late,))
        await self._stores.close(self._name)
