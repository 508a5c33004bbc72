"""Rows of synchronous groups, in the table and out of it: no journal, a fence level, and the arrays drive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from arrayd.replication.group_rows import Driver, Fence, GroupRow, Mode, PeerRows
from arrayd.replication.meetings import settled
from arrayd.replication.pairs import Pairs, PairsError
from arrayd.replication.statuses import Event, Operation, State, Writes
from arrayd.replication.transitions import HEARD, Circumstances
from arrayd.tables.pairs import StoredPairs
from tests.replication.tables import GROUP, MIRROR, Database


@pytest.fixture
def database() -> Iterator[Database]:
    database = Database()
    yield database
    database.close()


ANOTHER = replace(
    MIRROR, id=b"\x04" * 16, name="second", ctg=4, epoch=4, pairs=(replace(MIRROR.pairs[0], volume="v4"),)
)


def shown(pairs: Pairs) -> list[State]:
    return [state for group in pairs.groups() for state in group.states.values()]


@pytest.mark.parametrize(
    ("row", "wrong", "says"),
    [
        (MIRROR, {"journal": "j0"}, "synchronous group mirror with a journal"),
        (MIRROR, {"peer_journal": 20}, "synchronous group mirror with a journal"),
        (MIRROR, {"driver": Driver.HOST}, "a synchronous group is driven by the arrays"),
        (MIRROR, {"mode": Mode.ASYNC}, "asynchronous group mirror without journals"),
        (GROUP, {"journal": None}, "asynchronous group oradb without journals"),
        (GROUP, {"journal": ""}, "asynchronous group oradb without journals"),
        (GROUP, {"peer_journal": None}, "asynchronous group oradb without journals"),
        (GROUP, {"peer_journal": 16384}, "LUN 16384: expected 0 to 16383"),
        (GROUP, {"mode": Mode.SYNC}, "synchronous group oradb with a journal"),
        (GROUP, {"fence": Fence.DATA}, "a fence level, and group oradb is asynchronous"),
    ],
)
def test_what_no_group_can_be(row: GroupRow, wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(row, **wrong)  # type: ignore[arg-type]


def test_only_an_asynchronous_group_has_a_journal_volume() -> None:
    assert GROUP.journal_volume == "j0"
    with pytest.raises(AssertionError):
        assert MIRROR.journal_volume


async def test_synchronous_groups_are_kept_beside_each_other(database: Database) -> None:
    """Two without a journal are not two with the same one."""
    pairs = database.pairs()
    for row in (replace(GROUP, epoch=1), MIRROR, ANOTHER):
        await pairs.create(row, Operation.PAIRCREATE_VL, 5.0, database.save)
    for table in (pairs, database.pairs()):
        made = table.group("mirror")
        assert made is not None
        assert (made.mode, made.fence, made.journal, made.peer_journal) == (Mode.SYNC, Fence.DATA, None, None)
        assert [table.role(volume) for volume in ("v3", "v4", "j0")] == [
            "the P-VOL of pair data in group mirror",
            "the P-VOL of pair data in group second",
            "the journal of group oradb",
        ]
        assert (table.holds("v9"), table.holds("v3")) == (
            None,
            "the P-VOL of pair data in group mirror: pairsplit -S ends it",
        )


async def test_no_volume_is_held_for_a_journal_that_is_none_while_the_pairs_end(database: Database) -> None:
    pairs = database.pairs()
    await pairs.create(MIRROR, Operation.PAIRCREATE_VL, 5.0, database.save)
    with pairs.ending("mirror"):
        await pairs.happen("mirror", Operation.PAIRSPLIT_S, None, Circumstances(6.0), database.save)
        assert pairs.holds("v3") == "in a pair that is just being ended"
        assert pairs.holds("j0") is None
    assert pairs.holds("v3") is None


async def test_a_host_cannot_be_made_to_drive_it(database: Database) -> None:
    pairs = database.pairs()
    await pairs.create(MIRROR, Operation.PAIRCREATE_VL, 5.0, database.save)
    with pytest.raises(PairsError, match="group mirror: a synchronous group is driven by the arrays"):
        await pairs.keep("mirror", database.save, driver=Driver.HOST)
    kept = await pairs.keep("mirror", database.save, driver=Driver.ARRAYS, pace=9)
    assert (kept.driver, kept.pace, kept.fence) == (Driver.ARRAYS, 9, Fence.DATA)


async def test_an_error_that_fences_it_is_kept_and_taken_back(database: Database) -> None:
    """PVOL-PSUE-takeover lets hosts write again, and the fence level stays."""
    pairs = database.holding(MIRROR, State.P_PAIR)
    when, why = Circumstances(6.0), Circumstances(5.0, "the other array cannot be reached")
    fenced = await pairs.happen("mirror", Event.ERROR_FENCED, None, why, database.save)
    assert isinstance(fenced, GroupRow)
    (pair,) = fenced.pairs
    assert (pair.state, pair.error) == (State.P_PSUE_FENCED, "the other array cannot be reached")
    assert database.pairs().groups() == [fenced]
    opened = await pairs.happen("mirror", Operation.PVOL_PSUE, None, when, database.save)
    assert isinstance(opened, GroupRow)
    assert (opened.pairs[0].state, opened.fence, opened.generation) == (State.P_PSUE, Fence.DATA, fenced.generation + 1)
    assert (opened.pairs[0].error, opened.pairs[0].since) == (pair.error, 6.0)
    assert database.pairs().groups() == [opened]


@pytest.mark.parametrize("fence", Fence)
@pytest.mark.parametrize("state", [State.P_COPY, State.P_PAIR])
async def test_after_an_error_p_vols_of_fence_level_data_take_no_write(
    database: Database, fence: Fence, state: State
) -> None:
    """Whoever tells of it: this side by itself, or the other one, which has suspended. Of level status who tells of it
    says whether the other side knows."""
    expected = State.P_PSUE_FENCED if fence is Fence.DATA else State.P_PSUE
    there = {State.P_COPY: State.S_COPY, State.P_PAIR: State.S_PAIR}[state]
    when = Circumstances(6.0, "why")
    for peer in (None, PeerRows({0: there})):
        pairs = database.holding(replace(MIRROR, fence=fence), state)
        await pairs.happen("mirror", Event.ERROR, peer, when, database.save)
        assert shown(pairs) == [expected]
    pairs = database.holding(replace(MIRROR, fence=fence), state)
    await pairs.meet("mirror", PeerRows({0: State.S_PSUE}), when, database.save)
    assert shown(pairs) == [expected]
    (row,) = pairs.groups()
    assert row.pairs[0].error == "why"
    await pairs.happen("mirror", Operation.PVOL_PSUE, None, when, database.save)
    await pairs.meet("mirror", PeerRows({0: State.S_PSUE}), when, database.save)
    assert shown(pairs) == [State.P_PSUE]


@pytest.mark.parametrize("fence", Fence)
@pytest.mark.parametrize("there", [State.S_SSWS, State.S_SSUS_WRITABLE, State.S_SSUS])
async def test_beside_s_vols_that_were_taken_over_p_vols_of_fence_level_data_take_no_write(
    database: Database, fence: Fence, there: State
) -> None:
    """What a split has opened, or suspended, somebody has commanded at both sides, or will."""
    pairs = database.holding(replace(MIRROR, fence=fence), State.P_PAIR)
    await pairs.meet("mirror", PeerRows({0: there}, generation=1), Circumstances(6.0), database.save)
    fenced = fence is Fence.DATA and there is State.S_SSWS
    (row,) = pairs.groups()
    assert (row.pairs[0].state, row.pairs[0].error) == ((State.P_PSUE_FENCED, HEARD) if fenced else (State.P_PSUS, ""))
    assert settled(row.pairs[0].state, there)


@pytest.mark.parametrize("operation", [Operation.PAIRSPLIT, Operation.PAIRSPLIT_RW])
async def test_a_split_fences_nothing(database: Database, operation: Operation) -> None:
    for peer in (None, PeerRows({0: State.S_PAIR})):
        pairs = database.holding(replace(MIRROR, consistent=True), State.P_PAIR)
        await pairs.happen("mirror", operation, peer, Circumstances(6.0), database.save)
        assert shown(pairs) == [State.P_PSUS]


@pytest.mark.parametrize("wrong", [{"fence": "ever"}, {"mode": "later"}, {"journal": "j0"}, {"peer_journal": 3}])
def test_stored_rows_that_no_group_has_are_damage(wrong: dict[str, object]) -> None:
    row = replace(MIRROR, pairs=(replace(MIRROR.pairs[0], state=State.P_PAIR),))
    stored = row.stored()._replace(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"tables\.db: pairs: "):
        Pairs.of(StoredPairs([stored], row.stored_pairs(row.pairs), "9"))


def test_a_write_to_a_p_vol_that_runs_is_mirrored() -> None:
    mirrored = {state for state in State if state.writes_of(asynchronous=False) is Writes.MIRRORED}
    assert mirrored == {state for state in State if state.writes is Writes.JOURNALED}
    assert all(state.writes_of(asynchronous=True) is state.writes for state in State)
    assert State.P_PSUE_FENCED.writes_of(asynchronous=False) is Writes.REFUSED
