"""The figures of the patent about virtual volumes, each as a test."""

from __future__ import annotations

import os

from tests.lab.array import attentions, luns, read, write
from tests.lab.disk import MIB
from tests.lab.initiator import GOOD
from tests.lab.row import Row


async def test_figure_3_the_lun_map_has_volumes_and_mappings_to_other_arrays(row: Row) -> None:
    """LUN 0 has no mapping LUN: it is a volume. LUN 5 has target b and mapping LUN 0."""
    await row.stop("a")
    map_ = {"0": {"volume": "data"}, "5": {"virtual": {"array": "b", "lun": 0}}}
    await row.start("a", dials="b", luns=map_)
    async with await row.session("a") as host:
        assert await luns(host) == [0, 5]
        await attentions(host, 0)
        await attentions(host, 5)
        for lun in (0, 5):
            assert (await host.command(write(0), lun=lun, data_out=bytes([lun + 1]) * 512)).status == GOOD
    assert row.volume("a")[:512] == b"\x01" * 512
    assert row.volume("c")[:512] == b"\x06" * 512


async def test_figure_4_a_write_goes_on_to_the_second_array_and_a_read_comes_from_there(row: Row) -> None:
    """S401 and S402; b is the first storage device here, and c the second."""
    data = os.urandom(8 * 512)
    async with await row.session("b") as host:
        await attentions(host)
        assert (await host.command(write(100, 8), data_out=data)).status == GOOD
        assert row.volume("c")[51200 : 51200 + len(data)] == data
        assert row.volume("b") == bytes(MIB)
        assert (await host.command(read(100, 8), read_bytes=len(data))).data == data


async def test_figure_22_virtual_volumes_in_a_row_lead_to_the_third_array(row: Row) -> None:
    data = os.urandom(512)
    async with await row.session("a") as host:
        await attentions(host)
        assert (await host.command(write(7), data_out=data)).status == GOOD
        assert (await host.command(read(7), read_bytes=512)).data == data
    assert row.volume("c")[7 * 512 : 8 * 512] == data
    assert row.volume("a") == row.volume("b") == bytes(MIB)
