"""The stores of S-VOLs that run: the bitmap of each pair that is copied, and before-images, if the S-VOLs were a point
of the group's writes before."""

from __future__ import annotations

from collections.abc import Mapping

from arrayd.replication.before_images import BeforeImages
from arrayd.replication.copying import CopiedPair, Copying
from arrayd.replication.pair_stores import whole_bitmap
from arrayd.replication.stages import Stage
from arrayd.replication.statuses import Status
from arrayd.volumes.volume import Volume


class CopyStores:
    """Those of the group of `stage`, opened as they are asked for."""

    def __init__(self, stage: Stage) -> None:
        self.images: dict[int, BeforeImages] = {}
        """By the pair's number; of none where the copy has ended."""
        self.stay = False
        """Whether there are before-images of a copy that has ended, which must never be written back."""
        self._stage = stage
        self._open: set[str] = set()
        """Names of stores."""

    async def open_images(self, volumes: Mapping[int, Volume]) -> None:
        """Before-images of a copy that goes on stay those of its begin. Raises VolumeError."""
        stage, stores = self._stage, self._stage.doors.stores
        for number, volume in volumes.items():
            name = stage.images_name(number)
            self._open.add(name)
            images = await BeforeImages.open(stores, name, volume, stage.row.id, number)
            if images is None:
                images = await BeforeImages.create(stores, name, volume, stage.row.id, number)
            self.images[number] = images

    async def open_bitmaps(self, volumes: Mapping[int, Volume]) -> list[CopiedPair]:
        """Of the pairs that are copied. One that has none was never whole. Raises BitmapError, VolumeError."""
        stage, pairs = self._stage, []
        for pair in stage.row.pairs:
            if pair.state.status is not Status.COPY:
                continue
            number, volume = pair.number, volumes[pair.number]
            name = stage.bitmap_name(number)
            self._open.add(name)
            bitmap = await whole_bitmap(stage.doors, name, volume.size, stage.row.id)
            pairs.append(CopiedPair(number, volume, bitmap, self.images.get(number)))
        return pairs

    async def remove_images(self) -> None:
        """The copy has ended. Raises VolumeError."""
        self.stay = True
        for pair in self._stage.row.pairs:
            await self._stage.doors.stores.remove(self._stage.images_name(pair.number))
        self.stay = False

    async def close(self, copying: Copying | None) -> None:
        """All of them, and the bitmaps of the copy."""
        for pair in copying.pairs if copying is not None else ():
            await pair.bitmap.close()
        while self._open:
            await self._stage.doors.stores.close(self._open.pop())
