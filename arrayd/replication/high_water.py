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

NOTE = Layout(">I16sQQ")
"""The first bytes of the store: a CRC32C of the rest, in which boot of the machine, the journal's epoch, and how many
records were ever stored."""
CRC = Layout(">I")

log = get_logger("replication")


async def noted(stores: Stores, name: str, epoch: int, boot: bytes) -> int:
    """How many records a journal of this epoch had, as far as the store `name` tells: 0 where it was noted in another
    boot, or never. Raises VolumeError."""
    store = await stores.open(name)
    if store is None:
        return 0
    page = memoryview(mmap.mmap(-1, PAGE_BYTES))
    try:
        await finished(store.read(0, page))
    finally:
        await stores.close(name)
    crc, *where, records = NOTE.unpack_from(page)
    return int(records) if where == [boot, epoch] and crc == crc32c(page[CRC.size : NOTE.size]) else 0


class HighWater:
    """What notes how far the journal of `epoch` is stored, in `store`, which has this name."""

    def __init__(self, stores: Stores, name: str, store: Volume, epoch: int, boot: bytes) -> None:
        self._noted = 0
        self._stores = stores
        self._name = name
        self._store = store
        self._epoch = epoch
        self._boot = boot
        self._page = memoryview(mmap.mmap(-1, PAGE_BYTES))
        self._late: asyncio.Task[None] | None = None
        """What writes the store where that must wait."""

    @classmethod
    async def open(cls, stores: Stores, name: str, epoch: int, boot: bytes) -> HighWater:
        """What was noted there stays until there is more. Raises VolumeError."""
        store = await stores.open(name)
        if store is None:
            store = await stores.create(name, PAGE_BYTES)
        return cls(stores, name, store, epoch, boot)

    def note(self, records: int) -> None:
        """The journal has so many records, and no fewer than before."""
        if records == self._noted:
            return
        self._noted = records
        if self._late is None and not self._store.write_now(0, self._filled()):
            self._late = asyncio.get_running_loop().create_task(self._write())

    def _filled(self) -> memoryview:
        page = self._page
        NOTE.pack_into(page, 0, 0, self._boot, self._epoch, self._noted)
        CRC.pack_into(page, 0, crc32c(page[CRC.size : NOTE.size]))
        return page

    async def _write(self) -> None:
        """Writes until the store has what was noted last."""
        written = None
        try:
            while written != self._noted:
                written = self._noted
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
