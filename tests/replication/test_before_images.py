"""Before-images: what is kept, once, before it may be written over, and what of it survives."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress

import pytest

from arrayd.replication import before_images as module
from arrayd.replication.before_images import HEADER, HEADER_BYTES, BeforeImages, go_back
from arrayd.replication.pair_stores import new_bitmap, whole_bitmap
from arrayd.replication.stages import Doors, Stage
from arrayd.replication.statuses import State
from arrayd.volumes.volume import Volume, VolumeError
from tests.replication.following_doors import GROUP, FakePrimary, Site, row_of
from tests.replication.modelled import Crash

BLOCK = 4096
BLOCKS = 40
SIZE = BLOCKS * BLOCK - 512
CONTENT = random.Random(8).randbytes(SIZE)
ROW = row_of({0: State.S_COPY, 3: State.S_COPY}, consistent=True)


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_BYTES", BLOCK)
        patch.setattr(module, "STEP_BLOCKS", 4)
        yield


class Parts:
    def __init__(self) -> None:
        self.site = Site(FakePrimary(ROW, SIZE), 1 << 20)
        self.site.start_from({0: CONTENT, 3: CONTENT})

    @property
    def doors(self) -> Doors:
        return self.site.doors()

    @property
    def volume(self) -> Volume:
        return self.doors.volume("s0")

    async def create(self) -> BeforeImages:
        return await BeforeImages.create(self.site.stores, "images", self.volume, GROUP, 0)

    async def open(self) -> BeforeImages | None:
        return await BeforeImages.open(self.site.stores, "images", self.volume, GROUP, 0)

    @property
    def store_calls(self) -> list[str]:
        return self.site.stores.files["images"].calls


@pytest.fixture
def parts() -> Parts:
    return Parts()


async def test_what_is_kept_is_written_back(parts: Parts) -> None:
    images = await parts.create()
    assert list(images.ranges()) == []
    await images.keep([(BLOCK, 512), (3 * BLOCK - 512, 1024), (SIZE - 512, 512)])
    parts.site.s_vols[0].put(0, bytes(SIZE))
    assert list(images.ranges()) == [(BLOCK, 3 * BLOCK), (39 * BLOCK, BLOCK - 512)]
    for again in (images, await parts.open()):
        assert again is not None
        await again.write_back()
        found = parts.site.contents[0]
        assert found[BLOCK : 4 * BLOCK] == CONTENT[BLOCK : 4 * BLOCK]
        assert found[39 * BLOCK :] == CONTENT[39 * BLOCK :]
        assert not any(found[:BLOCK] + found[4 * BLOCK : 39 * BLOCK])
        assert parts.site.s_vols[0].durable == found


async def test_a_block_is_kept_once(parts: Parts) -> None:
    images = await parts.create()
    await images.keep([(0, 2 * BLOCK)])
    parts.site.s_vols[0].put(0, bytes(SIZE))
    parts.store_calls.clear()
    await images.keep([(512, BLOCK)])
    assert parts.store_calls == []
    await images.keep([(BLOCK, 2 * BLOCK)])
    await images.write_back()
    assert parts.site.contents[0][: 2 * BLOCK] == CONTENT[: 2 * BLOCK]
    assert not any(parts.site.contents[0][2 * BLOCK :])


async def test_content_is_durable_before_its_note_and_both_before_it_returns(parts: Parts) -> None:
    images = await parts.create()
    parts.store_calls.clear()
    await images.keep([(0, 6 * BLOCK)])
    assert parts.store_calls == ["write", "write", "sync", "write", "sync"]


async def test_who_needs_a_block_that_another_keeps_waits_for_it(parts: Parts) -> None:
    images = await parts.create()
    first = asyncio.ensure_future(images.keep([(0, 8 * BLOCK)]))
    await asyncio.sleep(0)
    await images.keep([(BLOCK, 512)])
    assert first.done() or list(images.ranges()) == [(0, 4 * BLOCK), (4 * BLOCK, 4 * BLOCK)]
    await first


@pytest.mark.parametrize("seed", range(0, 60, 3))
async def test_after_a_power_loss_a_note_means_that_it_is_kept(parts: Parts, seed: int) -> None:
    images = await parts.create()
    parts.site.machine.chance.seed(seed)
    await images.keep([(4 * BLOCK, BLOCK)])
    keeping = asyncio.ensure_future(images.keep([(0, 20 * BLOCK)]))
    for _ in range(seed):
        await asyncio.sleep(0)
    parts.site.machine.dead = True
    with suppress(Crash):
        await keeping
    parts.site.machine.dead = False
    parts.site.lose_power()
    found = await parts.open()
    assert found is not None
    kept = list(found.ranges())
    assert any(at <= 4 * BLOCK < at + length for at, length in kept)
    parts.site.s_vols[0].put(0, bytes(SIZE))
    await found.write_back()
    for offset, length in kept:
        assert parts.site.contents[0][offset : offset + length] == CONTENT[offset : offset + length]


@pytest.mark.parametrize("synced", range(7))
async def test_what_a_failed_sync_left_in_memory_is_written_again_when_it_is_opened(parts: Parts, synced: int) -> None:
    """The kernel takes the pages for clean: no later sync writes them, nor says so (seed 1908794)."""
    making = parts.site.stores.create

    async def create(name: str, size: int) -> Volume:
        volume = await making(name, size)
        parts.site.stores.files[name].sync_fails_after = synced
        return volume

    parts.site.stores.create = create  # type: ignore[method-assign]
    images: BeforeImages | None = None
    for at in range(0, 4 * BLOCK, BLOCK):
        for _ in range(2):
            try:
                images = images or await parts.open() or await parts.create()
                await images.keep([(at, BLOCK)])
                break
            except VolumeError:
                images = None
        parts.site.s_vols[0].put(at, bytes(BLOCK))
    parts.site.lose_power()
    found = await parts.open()
    assert found is not None
    await found.write_back()
    assert parts.site.contents[0] == CONTENT


async def test_a_store_of_another_pair_is_none(parts: Parts) -> None:
    assert await parts.open() is None
    await parts.create()
    assert await parts.open() is not None
    other = BeforeImages.open(parts.site.stores, "images", parts.volume, GROUP, 3)
    assert await other is None
    assert await BeforeImages.open(parts.site.stores, "images", parts.volume, bytes(16), 0) is None
    parts.site.stores.files["images"].put(0, bytes(BLOCK))
    assert await parts.open() is None
    await parts.site.stores.create("images", 4096)
    assert await parts.open() is None


def test_the_header() -> None:
    packed = module._header(GROUP, 3, SIZE)
    assert len(packed) == HEADER_BYTES
    told = HEADER.parse(packed)
    assert (told.version, told.group, told.number, told.size) == (1, GROUP, 3, SIZE)


class Standing(Stage):
    """A stage that does nothing."""

    async def prepare(self, found: bool = False) -> None: ...

    async def enter(self) -> None: ...

    async def stop(self, row: object) -> None: ...

    async def close(self) -> None: ...


async def test_going_back_is_marked(parts: Parts) -> None:
    stage = Standing(ROW, parts.doors, parts.site.told())
    for number, name in ((0, "s0"), (3, "s3")):
        images = await BeforeImages.create(
            parts.site.stores, stage.images_name(number), stage.doors.volume(name), GROUP, number
        )
        await new_bitmap(stage.doors, stage.bitmap_name(number), SIZE, GROUP, marked=False)
        await images.keep([(number * BLOCK, BLOCK)])
        parts.site.s_vols[number].put(number * BLOCK, b"copied" * 100)
    for _ in range(2):
        await go_back(stage)
        assert parts.site.contents == {0: CONTENT, 3: CONTENT}
        for number in (0, 3):
            bitmap = await whole_bitmap(stage.doors, stage.bitmap_name(number), SIZE, GROUP)
            assert list(bitmap.ranges()) == [(number * BLOCK, BLOCK)]
        parts.site.lose_power()
        # What is written from now on is kept anew.
        found = await BeforeImages.open(parts.site.stores, stage.images_name(0), stage.doors.volume("s0"), GROUP, 0)
        assert found is not None
        assert list(found.ranges()) == []


async def test_going_back_without_before_images_does_nothing(parts: Parts) -> None:
    parts.site.s_vols[0].put(0, b"other")
    await go_back(Standing(ROW, parts.doors, parts.site.told()))
    assert parts.site.contents[0].startswith(b"other")
    assert parts.site.stores.files == {}


async def test_bitmaps_are_opened_or_made(parts: Parts) -> None:
    doors = parts.doors
    made = await whole_bitmap(doors, "bits", SIZE, GROUP)
    assert made.marked_bytes == SIZE
    made = await new_bitmap(doors, "bits", SIZE, GROUP, marked=False)
    await made.mark(0, 512)
    again = await whole_bitmap(doors, "bits", SIZE, GROUP)
    assert again.marked_bytes == 4096
    # About another volume, or its making was cut short: nothing is known.
    assert (await whole_bitmap(doors, "bits", SIZE, bytes(16))).marked_bytes == SIZE
    assert (await whole_bitmap(doors, "bits", SIZE - 4096, GROUP)).marked_bytes == SIZE - 4096
    await parts.site.stores.create("bits", 65536)
    assert (await whole_bitmap(doors, "bits", SIZE, GROUP)).marked_bytes == SIZE
