"""A verify finds what differs, and nothing else, while hosts write; and mends it from either side."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.replication.asking import Range
from arrayd.replication.following import Following
from arrayd.replication.group_rows import Mode
from arrayd.replication.journaling import Journaling
from arrayd.replication.statuses import Refusal, State
from arrayd.replication.synchronous.mirroring import Mirroring
from arrayd.replication.synchronous.receiving import Receiving
from arrayd.replication.verifying import told as told_module
from arrayd.replication.verifying.answering import without
from arrayd.replication.verifying.formats import Leads
from arrayd.replication.verifying.told import Findings, Found, Outcome
from arrayd.replication.verifying.verifier import _told
from arrayd.volumes.volume import VolumeFailed
from tests.lab.search import examples
from tests.replication.synchronous.sides import REGION, Sides, suspended, until_in_time
from tests.replication.verifying.compared import SIZE, Compared, found

MODES = st.sampled_from(Mode)


@settings(max_examples=examples(12), deadline=None)
@given(MODES, st.integers(0, 2**32), st.integers(0, 6), st.integers(1, 6))
def test_what_differs_is_found_and_nothing_else_while_hosts_write(
    mode: Mode, seed: int, flips: int, writers: int
) -> None:
    async def run() -> None:
        compared = Compared(mode, seed)
        await compared.begin()
        flipped = compared.regions(flips)
        async with compared.written(writers):
            for region in flipped:
                compared.flip(compared.chance.random() < 0.5, region, compared.chance.choice((1, 1, 2, 50)))
            told = await compared.verify()
        assert found(told) == set(flipped), told.trouble
        assert told.outcome is (Outcome.DIFFERS if flips else Outcome.SAME)
        assert compared.writes
        assert (told.findings.differing, told.job.left) == (flips * REGION, 0)
        await compared.sides.close()

    asyncio.run(run())


@settings(max_examples=examples(12), deadline=None)
@given(MODES, st.sampled_from(Leads), st.integers(0, 2**32), st.integers(1, 6), st.booleans())
def test_what_is_mended_is_as_the_side_has_it_that_leads(
    mode: Mode, leads: Leads, seed: int, flips: int, hosts_write_there: bool
) -> None:
    async def run() -> None:
        compared = Compared(mode, seed)
        await compared.begin()
        sides = compared.sides
        flipped = compared.regions(flips)
        for region in flipped:
            compared.flip(compared.chance.random() < 0.5, region)
        right = sides.near if leads is Leads.P_VOLS else sides.far
        wanted = {(number, at): bytes(right.files[number].content[at : at + REGION]) for number, at in flipped}
        if hosts_write_there:
            compared.kept.clear()
        async with compared.written():
            told = await compared.verify(leads)
        if not hosts_write_there:
            assert (told.outcome, found(told)) == (Outcome.MENDED, set(flipped)), told.trouble
            assert told.findings.mended == told.findings.differing == flips * REGION
        assert told.outcome in (Outcome.MENDED, Outcome.SAME), told.trouble
        await compared.alike()
        if not hosts_write_there:
            for (number, at), data in wanted.items():
                assert sides.near.files[number].content[at : at + REGION] == data
        assert (await compared.verify()).outcome is Outcome.SAME
        await sides.close()

    asyncio.run(run())


@pytest.mark.parametrize("mode", Mode)
async def test_all_of_it_may_differ(mode: Mode) -> None:
    compared = Compared(mode)
    await compared.begin()
    for array, byte in ((compared.sides.near, 1), (compared.sides.far, 2)):
        array.files[3].content[:] = bytes([byte]) * SIZE
    told = await compared.verify()
    assert [each[:3] for each in told.findings.found] == [(3, 0, SIZE)]
    assert (await compared.verify(pair=0)).outcome is Outcome.SAME
    async with compared.written(1):
        told = await compared.verify(Leads.P_VOLS)
    assert told.outcome is Outcome.MENDED
    await compared.alike()
    await compared.sides.close()


@pytest.mark.parametrize("mode", Mode)
async def test_one_runs_at_a_time_and_it_is_stopped(mode: Mode) -> None:
    compared = Compared(mode)
    await compared.begin()
    assert compared.verifier.told() is None
    compared.sides.cut = True
    compared.verifier.begin()
    assert isinstance(compared.verifier.begin(), Refusal)
    await until_in_time(lambda: bool(compared.told(compared.verifier).trouble))
    told = compared.told(compared.verifier)
    assert (told.outcome, told.trouble, told.job.rate) == (Outcome.RUNNING, "cut", None)
    await compared.verifier.end("told to")
    told = compared.told(compared.verifier)
    assert (told.outcome, told.trouble) == (Outcome.STOPPED, "told to")
    compared.sides.cut = False
    assert (await compared.verify()).outcome is Outcome.SAME
    await compared.sides.close()


@pytest.mark.parametrize("mode", Mode)
async def test_it_goes_on_when_the_link_is_back(mode: Mode) -> None:
    compared = Compared(mode)
    await compared.begin()
    (region,) = compared.regions(1)
    compared.flip(True, region)
    compared.sides.turns = 3
    async with compared.written(2):
        compared.verifier.begin()
        for _ in range(4):
            await asyncio.sleep(0.005)
            compared.sides.cut = True
            await asyncio.sleep(0.01)
            compared.sides.cut = False
        told = await compared.ended()
    assert found(told) == {region}
    await compared.sides.close()


@pytest.mark.parametrize("mode", Mode)
async def test_it_ends_with_the_stage(mode: Mode) -> None:
    compared = Compared(mode)
    sides = compared.sides
    await compared.begin()
    async with compared.written(2):
        verifier = compared.verifier
        sides.cut = True
        verifier.begin()
        await asyncio.sleep(0.002)
        await sides.near.begin(suspended(sides.near.row, State.P_PSUS))
        await sides.far.begin(suspended(sides.far.row, State.S_SSUS))
    told = compared.told(verifier)
    assert (told.outcome, told.trouble) == (Outcome.STOPPED, "the pairs were changed")
    assert sides.far.stage is not None
    assert sides.far.stage.verifier is None
    await sides.close()


@pytest.mark.parametrize("mode", Mode)
async def test_pairs_that_are_copied_are_not_compared(mode: Mode) -> None:
    sides = Sides(SIZE, mode=mode)
    sides.cut = True
    await sides.pair(State.P_COPY)
    assert sides.far.stage is not None
    verifier = sides.far.stage.verifier
    assert verifier is not None
    refused = verifier.begin()
    assert isinstance(refused, Refusal)
    assert refused.text == "the pairs are COPY: pairevtwait -s pair first"
    sides.cut = False
    await sides.close()


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("far", [False, True])
async def test_a_volume_that_cannot_be_read_ends_it(mode: Mode, far: bool) -> None:
    compared = Compared(mode)
    await compared.begin()
    array = compared.sides.far if far else compared.sides.near

    def no(_offset: int, _view: memoryview) -> bool:
        raise VolumeFailed("broken")

    stage = array.stage
    assert isinstance(stage, Following | Receiving | Journaling | Mirroring)
    for volume in (stage._volumes if isinstance(stage, Following | Receiving) else stage._fronts).values():
        volume.read_now = no
    told = await compared.verify()
    assert told.outcome is Outcome.FAILED
    assert told.trouble == "broken"


def test_what_is_mended_in_part_is_told_so() -> None:
    findings = Findings()
    findings.add(_told(0, [Range(0, 8192), Range(16384, 512)], [Range(4096, 4096), Range(12288, 4096)]))
    findings.add(_told(0, [Range(8192, 4096)], []))
    assert [tuple(each) for each in findings.found] == [
        (0, 0, 4096, True),
        (0, 4096, 4096, False),
        (0, 8192, 4096, True),
        (0, 12288, 4096, False),
        (0, 16384, 512, True),
    ]
    assert (findings.differing, findings.mended, findings.outcome) == (16896, 8704, Outcome.DIFFERS)


def test_no_more_ranges_are_remembered_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told_module, "FOUND_MAX", 3)
    findings = Findings()
    for at in range(5):
        findings.add([Found(0, at * 8192, 4096, False)])
    assert (len(findings.found), findings.differing, findings.more) == (3, 5 * 4096, True)


@given(st.lists(st.builds(Range, st.integers(0, 60), st.integers(1, 9)), max_size=6))
def test_what_is_newer_is_left_out(ranges: list[Range]) -> None:
    newer = {byte for offset, length in ranges for byte in range(offset, offset + length)}
    left = [byte for offset, length in without(Range(10, 40), ranges) for byte in range(offset, offset + length)]
    assert left == [byte for byte in range(10, 50) if byte not in newer]
