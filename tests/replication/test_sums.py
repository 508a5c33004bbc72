"""Sums of what a volume has."""

from __future__ import annotations

import random

import pytest
from crc32c import crc32c

from arrayd.replication.asking import Range
from arrayd.replication.sums import SUM_BYTES, SUMS_MAX, differing, sums_of, warmed
from arrayd.volumes.volume import VolumeFailed
from tests.replication.modelled import Machine, ModelFile
from tests.replication.still import volume_of

SIZE = 20 * SUM_BYTES + 1024


@pytest.fixture
def file() -> ModelFile:
    made = ModelFile(Machine(1), SIZE, 0)
    made.content[:] = random.Random(1).randbytes(SIZE)
    return made


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, SUM_BYTES), (0, SIZE), (512, SUM_BYTES), (SUM_BYTES, SUM_BYTES + 512), (SIZE - 512, 512), (0, 512)],
)
async def test_each_is_of_so_many_bytes_and_the_last_of_what_is_left(file: ModelFile, offset: int, length: int) -> None:
    expected = [
        crc32c(bytes(file.content[at : min(at + SUM_BYTES, offset + length)]))
        for at in range(offset, offset + length, SUM_BYTES)
    ]
    assert await sums_of(volume_of(file), offset, length) == expected


@pytest.mark.parametrize("each", [4096, 16384, SUM_BYTES])
async def test_each_is_of_as_many_bytes_as_is_wanted(file: ModelFile, each: int) -> None:
    offset, length = 1024, 3 * SUM_BYTES + 512
    ends = [min(at + each, offset + length) for at in range(offset, offset + length, each)]
    expected = [
        crc32c(bytes(file.content[at:end])) for at, end in zip(range(offset, offset + length, each), ends, strict=True)
    ]
    assert await sums_of(volume_of(file), offset, length, each) == expected


async def test_what_is_not_in_memory_is_brought_there(file: ModelFile) -> None:
    volume = volume_of(file)
    read: list[tuple[int, int]] = []

    async def noted(offset: int, view: memoryview) -> None:
        read.append((offset, len(view)))

    volume.read = noted  # type: ignore[method-assign]
    volume.warm_file = lambda offset, _length: None if offset == SUM_BYTES else (0, 0)  # type: ignore[assignment,method-assign,return-value]
    await warmed(volume, 0, 2 * SUM_BYTES + 512)
    assert read == [(SUM_BYTES, SUM_BYTES)]


def test_where_sums_differ() -> None:
    assert differing(4096, 9000, 4096, [1, 2, 3], [1, 2, 3]) == []
    assert differing(4096, 9000, 4096, [1, 2, 3], [0, 2, 0]) == [Range(4096, 4096), Range(12288, 808)]
    assert differing(4096, 9000, 4096, [1, 2, 3], [1, 0, 0]) == [Range(8192, 4904)]


async def test_what_is_not_in_memory_is_waited_for(file: ModelFile) -> None:
    warm = await sums_of(volume_of(file), 0, SIZE)
    volume = volume_of(file)
    volume.read_now = lambda _offset, _view: False

    async def read(offset: int, view: memoryview) -> None:
        view[:] = file.content[offset : offset + len(view)]

    volume.read = read  # type: ignore[method-assign]
    assert await sums_of(volume, 0, SIZE) == warm


async def test_a_disk_that_fails_is_told(file: ModelFile) -> None:
    volume = volume_of(file)
    volume.read_now = lambda _offset, _view: False

    async def read(offset: int, view: memoryview) -> None:
        raise VolumeFailed("gone")

    volume.read = read  # type: ignore[method-assign]
    with pytest.raises(VolumeFailed):
        await sums_of(volume, 0, SIZE)


@pytest.mark.parametrize("length", [0, SUM_BYTES * SUMS_MAX + 512])
async def test_so_many_at_the_most(file: ModelFile, length: int) -> None:
    with pytest.raises(AssertionError):
        await sums_of(volume_of(file), 0, length)
