"""The pair management table (figure 10): it holds what the statuses and meetings allow, and what the database has."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.replication.group_rows import Driver, GroupRow, PeerRows
from arrayd.replication.meetings import Age, alone, contradict, met, settled, together
from arrayd.replication.pairs import GROUPS_MAX, NOT_ALONE, Pairs, PairsError
from arrayd.replication.statuses import (
    COPYING,
    NEVER_WHOLE,
    NO_PAIR,
    PEER_SILENT,
    Event,
    Happening,
    Operation,
    Refusal,
    Side,
    State,
    Status,
)
from arrayd.replication.transitions import CONTRADICT, NEW_GENERATION, NOT_MET, Circumstances
from arrayd.tables import MIGRATIONS, Work
from arrayd.tables.pairs import read_pairs
from arrayd.turns import CHANGES_MAX
from tests.lab.search import examples
from tests.replication.rows import HAPPENINGS
from tests.replication.tables import GROUP, OTHER, PAIR_A, Database, NotSavedError, fail, shown

CREATE = (Operation.PAIRCREATE_VL, Operation.PAIRCREATE_VR)
AT = Circumstances(7.0)
PAIRED = [state for state in State if state is not State.SMPL]


@pytest.fixture
def database() -> Iterator[Database]:
    database = Database()
    yield database
    database.close()


def row(pairs: Pairs, name: str = "oradb") -> GroupRow:
    group = pairs.group(name)
    assert group is not None
    return group


async def test_figure_10_both_sides_have_a_row_of_a_pair_in_either_direction(database: Database) -> None:
    pairs = database.pairs()
    await pairs.create(GROUP, Operation.PAIRCREATE_VL, 5.0, database.save)
    await pairs.create(OTHER, Operation.PAIRCREATE_VR, 6.0, database.save)
    for table in (pairs, database.pairs()):
        back, oradb = table.groups()
        assert (oradb.side, back.side) == (Side.P_VOL, Side.S_VOL)
        assert oradb.states == {0: State.P_COPY, 1: State.P_COPY}
        assert (oradb.generation, oradb.consistent, oradb.epoch) == (1, False, 1)
        assert [pair.since for pair in oradb.pairs] == [5.0] * 2
        assert table.last_epoch == 2
        ((group, pair),) = table.of_volume("v1")
        assert (group, pair.name, pair.peer_lun, pair.peer_volume) == (oradb, "log", 1, "410002:v1")


async def test_volumes_and_journals_are_held_as_long_as_there_is_a_pair(database: Database) -> None:
    pairs = database.pairs()
    assert pairs.holds("v0") is None
    await pairs.create(GROUP, Operation.PAIRCREATE_VL, 5.0, database.save)
    await pairs.create(OTHER, Operation.PAIRCREATE_VR, 5.0, database.save)
    assert pairs.holds("v0") == "the P-VOL of pair data in group oradb: pairsplit -S ends it"
    assert pairs.holds("v2") == "the S-VOL of pair data in group back: pairsplit -S ends it"
    assert pairs.holds("j0") == "the journal of group oradb: pairsplit -S ends it"
    assert pairs.holds("free") is None
    after = await pairs.happen("oradb", Operation.PAIRSPLIT_S, None, AT, database.save, pair=0)
    assert isinstance(after, GroupRow)
    assert (pairs.holds("v0"), pairs.of_volume("v0")) == (None, ())
    assert pairs.holds("v1") is not None
    assert pairs.holds("j0") is not None
    assert await pairs.happen("oradb", Operation.PAIRSPLIT_S, None, AT, database.save) is None
    assert (pairs.holds("v1"), pairs.holds("j0"), pairs.group("oradb")) == (None, None, None)
    assert shown(database.pairs()) == shown(pairs)
    assert pairs.last_epoch == 2, "an epoch is not used again"


@pytest.mark.parametrize(
    ("group", "says"),
    [
        (replace(OTHER, name="oradb"), "there is one, with another id"),
        (replace(GROUP, pairs=OTHER.pairs), "numbers of pairs out of order, or twice"),
        (GROUP, "volume v0 is the P-VOL of pair data"),
        (replace(OTHER, id=GROUP.id), "group oradb has its id"),
        (replace(OTHER, ctg=0), "group oradb has CTG 0"),
        (replace(OTHER, journal="j0"), "volume j0 is the journal of group oradb"),
        (replace(OTHER, journal="v1"), "volume v1 is the P-VOL of pair log in group oradb"),
        (replace(OTHER, pairs=(replace(OTHER.pairs[0], volume="v0"),)), "volume v0 is the P-VOL of pair data"),
        (replace(OTHER, pairs=(replace(OTHER.pairs[0], volume="j0"),)), "volume j0 is the journal of group oradb"),
        (replace(OTHER, epoch=1), "epoch 1: expected more than 1"),
    ],
)
async def test_a_group_that_does_not_go_with_the_others_is_not_made(
    database: Database, group: GroupRow, says: str
) -> None:
    pairs = database.pairs()
    await pairs.create(GROUP, Operation.PAIRCREATE_VL, 5.0, database.save)
    before = shown(pairs)
    with pytest.raises(PairsError, match=says) as caught:
        await pairs.create(group, Operation.PAIRCREATE_VL, 5.0, database.save)
    assert "\n" not in str(caught.value)
    assert shown(pairs) == shown(database.pairs()) == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": b"short"},
        {"ctg": 256},
        {"pairs": ()},
        {"pairs": (PAIR_A, PAIR_A)},
        {"pairs": (PAIR_A, replace(PAIR_A, number=1, name="b", peer_lun=1, peer_volume="410002:b"))},
        {"pairs": (PAIR_A, replace(PAIR_A, number=1, name="b", volume="v1"))},
        {"journal": "v0"},
        {"peer_journal": 0},
        {"pace": 0},
        {"epoch": 0},
        {"pairs": (replace(PAIR_A, state=State.P_PAIR), replace(GROUP.pairs[1], state=State.S_PAIR))},
    ],
)
def test_rows_that_no_group_has_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        replace(GROUP, **wrong)  # type: ignore[arg-type]


async def test_every_cell_of_the_table_is_stored_as_it_says_and_nothing_else(database: Database) -> None:
    """Told alone, and together with every state of the peer."""
    for state, consistent in itertools.product(PAIRED, (False, True)):
        pairs, before = Pairs([], 9), None
        for happening, peer in itertools.product(HAPPENINGS, (None, *State)):
            if consistent and peer is not None and not settled(state, peer):
                continue  # as if it were not
            if before is None or pairs.group("oradb") is not before:
                database.connection.execute("DELETE FROM pairs")
                database.connection.execute("DELETE FROM consistency_groups")
                group = replace(GROUP, pairs=(PAIR_A,), generation=3, consistent=consistent)
                pairs = database.holding(group, state)
                before = row(pairs)
            rows = None if peer is None else PeerRows({0: peer}, 3, consistent)
            if peer is not None and not settled(state, peer):
                expected: State | Refusal = CONTRADICT if contradict(state, peer) else NOT_MET
            elif peer is None:
                expected = alone(state, happening, consistent=consistent)
            else:
                both = together(state, peer, happening, consistent=consistent)
                expected = both if isinstance(both, Refusal) else both[0]
            outcome = await pairs.happen("oradb", happening, rows, Circumstances(8.0, "disk"), database.save)
            assert outcome is expected or shown(pairs) == shown(database.pairs()), (state, happening)
            if isinstance(expected, Refusal) or expected is state:
                assert outcome is (expected if isinstance(expected, Refusal) else before)
                assert row(pairs) is before
            elif expected is State.SMPL:
                assert outcome is None
                assert pairs.group("oradb") is None
            else:
                assert isinstance(outcome, GroupRow)
                (pair,) = outcome.pairs
                assert (pair.state, pair.since) == (expected, 8.0)
                assert pair.error == ("disk" if expected.status is Status.PSUE else "")
                assert outcome.generation == 3 + (happening in NEW_GENERATION)
                assert outcome.consistent == (consistent or happening is Event.COPY_END)


async def test_every_meeting_is_stored_as_the_table_says(database: Database) -> None:
    for state, peer, age in itertools.product(PAIRED, State, Age):
        database.connection.execute("DELETE FROM pairs")
        database.connection.execute("DELETE FROM consistency_groups")
        pairs = database.holding(replace(GROUP, pairs=(PAIR_A,), generation=3), state)
        outcome = await pairs.meet("oradb", PeerRows({0: peer}, 3 - age, True), AT, database.save)
        assert isinstance(outcome, GroupRow)
        assert outcome.states == {0: met(state, peer, age)}
        assert outcome.generation == max(3, 3 - age)
        learns = outcome.side is Side.P_VOL and peer.side is Side.S_VOL
        assert outcome.consistent == learns, "the S-VOL's side knows"
        assert shown(database.pairs()) == shown(pairs)


async def test_what_one_pair_refuses_no_pair_of_the_group_does(database: Database) -> None:
    group = replace(GROUP, consistent=True)
    pairs = database.holding(group, State.S_PAIR, State.S_COPY)
    peer = PeerRows({0: State.P_PAIR, 1: State.P_COPY})
    assert await pairs.happen("oradb", Operation.SWAP, peer, AT, database.save) is COPYING
    assert row(pairs).states == {0: State.S_PAIR, 1: State.S_COPY}


async def test_the_pairs_of_a_group_change_places_together(database: Database) -> None:
    pairs = database.holding(replace(GROUP, consistent=True), State.S_PAIR, State.S_PAIR)
    peer = PeerRows({0: State.P_PAIR, 1: State.P_PAIR})
    assert await pairs.happen("oradb", Operation.SWAP, peer, AT, database.save, pair=1) is NOT_ALONE
    assert row(pairs).side is Side.S_VOL
    swapped = await pairs.happen("oradb", Operation.SWAP, peer, Circumstances(7.0, epoch=12), database.save)
    assert isinstance(swapped, GroupRow)
    assert (swapped.side, swapped.generation, swapped.epoch, swapped.consistent) == (Side.P_VOL, 1, 12, True)
    assert database.pairs().last_epoch == 12


async def test_a_pair_that_ended_is_made_again_in_its_group(database: Database) -> None:
    pairs = database.holding(replace(GROUP, consistent=True), State.P_PAIR, State.P_PAIR)
    await pairs.happen("oradb", Operation.PAIRSPLIT_S, None, AT, database.save, pair=0)
    again = replace(GROUP, pairs=(PAIR_A,), epoch=77)
    with pytest.raises(PairsError, match="P-VOLs and S-VOLs in group oradb"):
        await pairs.create(again, Operation.PAIRCREATE_VR, 5.0, database.save)
    group = await pairs.create(again, Operation.PAIRCREATE_VL, 5.0, database.save)
    assert group.states == {0: State.P_COPY, 1: State.P_PAIR}
    assert (group.generation, group.consistent, group.epoch) == (1, False, 1)
    assert shown(database.pairs()) == shown(pairs)


async def test_there_are_only_so_many_groups_and_changes(database: Database) -> None:
    groups = [
        replace(OTHER, id=number.to_bytes(16), name=f"g{number}", ctg=number, journal=f"j{number}", epoch=1)
        for number in range(GROUPS_MAX)
    ]
    pairs = Pairs(groups, 1)
    free = replace(GROUP, epoch=2)
    with pytest.raises(PairsError, match="there are 256 groups"):
        await pairs.create(free, Operation.PAIRCREATE_VL, 5.0, database.save)
    waiting = [asyncio.ensure_future(pairs.meet("none", PeerRows(), AT, database.save)) for _ in range(CHANGES_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(PairsError, match="256 changes of pairs wait already"):
        await pairs.meet("none", PeerRows(), AT, database.save)
    assert await asyncio.gather(*waiting) == [None] * CHANGES_MAX


async def test_sides_of_two_generations_have_to_meet_first(database: Database) -> None:
    pairs = database.holding(GROUP, State.P_PAIR, State.P_PAIR)
    peer = PeerRows({0: State.S_PAIR, 1: State.S_PAIR}, 1)
    assert await pairs.happen("oradb", Operation.PAIRSPLIT, peer, AT, database.save) is NOT_MET


async def test_what_is_whole_is_so_when_all_copies_have_ended(database: Database) -> None:
    pairs = database.holding(GROUP, State.S_COPY, State.S_COPY)
    peer = PeerRows({0: State.P_COPY, 1: State.P_COPY})
    await pairs.happen("oradb", Event.COPY_END, peer, AT, database.save, pair=1)
    assert not row(pairs).consistent, "the other pair's copy has not ended"
    peer = PeerRows({0: State.P_COPY, 1: State.P_PAIR})
    assert await pairs.happen("oradb", Operation.SVOL_SSUS, None, AT, database.save) is NEVER_WHOLE
    await pairs.happen("oradb", Operation.PAIRSPLIT, peer, AT, database.save)
    resumed = PeerRows({0: State.P_PSUS, 1: State.P_PSUS})
    assert await pairs.happen("oradb", Operation.PAIRRESYNC, None, AT, database.save) is PEER_SILENT
    pairs = database.pairs()
    await pairs.happen("oradb", Operation.PAIRRESYNC, resumed, AT, database.save)
    peer = PeerRows({0: State.P_COPY, 1: State.P_COPY}, 1)
    await pairs.happen("oradb", Event.COPY_END, peer, AT, database.save)
    assert row(database.pairs()).consistent


async def test_what_is_kept_beside_the_states(database: Database) -> None:
    pairs = database.holding(GROUP.with_unsynced({0, 1}, True), State.P_PSUE, State.P_PSUE)
    await pairs.keep("oradb", database.save, pace=15, driver=Driver.HOST)
    await pairs.keep("oradb", database.save, synced={1})
    kept = row(database.pairs())
    assert (kept.pace, kept.driver, [pair.unsynced for pair in kept.pairs]) == (15, Driver.HOST, [True, False])
    for rate, stored in ((1 << 20, 1 << 20), (None, 1 << 20), (0, None)):
        await pairs.keep("oradb", database.save, copy_rate=rate)
        assert row(database.pairs()).copy_rate == stored
    for pace in (0, 16):
        with pytest.raises(PairsError, match=f"copy pace {pace}: expected 1 to 15"):
            await pairs.keep("oradb", database.save, pace=pace)
    with pytest.raises(PairsError, match="group nothing: there is none"):
        await pairs.keep("nothing", database.save, pace=1)


async def test_of_what_has_no_row_the_table_says_what_it_says_of_smpl(database: Database) -> None:
    pairs = database.pairs()
    assert await pairs.happen("oradb", Operation.PAIRRESYNC, None, AT, database.save) is NO_PAIR
    assert await pairs.happen("oradb", Operation.PAIRSPLIT_S, None, AT, database.save) is None
    assert await pairs.meet("oradb", PeerRows(), AT, database.save) is None


async def test_what_is_not_committed_is_not_shown(database: Database) -> None:
    pairs = database.holding(GROUP, State.P_PAIR, State.P_PAIR)
    before = shown(pairs)
    with pytest.raises(NotSavedError):
        await pairs.happen("oradb", Operation.PAIRSPLIT_S, None, AT, fail)
    with pytest.raises(NotSavedError):
        await pairs.happen("oradb", Operation.PAIRSPLIT, None, AT, fail)
    with pytest.raises(NotSavedError):
        await pairs.create(replace(OTHER, epoch=10), Operation.PAIRCREATE_VL, 5.0, fail)
    assert shown(pairs) == shown(database.pairs()) == before
    assert pairs.holds("v2") is None
    assert pairs.holds("v0") is not None


async def test_changes_are_made_in_turn_and_a_waiter_that_is_cancelled_changes_nothing(database: Database) -> None:
    pairs = database.holding(GROUP, State.P_PAIR, State.P_PAIR)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(work: Work) -> None:
        begun.set()
        await go_on.wait()
        await database.save(work)

    split = asyncio.ensure_future(pairs.happen("oradb", Operation.PAIRSPLIT, None, AT, slow))
    await begun.wait()
    ended = asyncio.ensure_future(pairs.happen("oradb", Operation.PAIRSPLIT_S, None, AT, database.save, pair=0))
    await asyncio.sleep(0)
    assert row(pairs).states == {0: State.P_PAIR, 1: State.P_PAIR}, "not before it is committed"
    split.cancel()
    go_on.set()
    await ended
    assert row(pairs).states == row(database.pairs()).states == {1: State.P_PSUS}
    await pairs.settle()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE pairs SET state = 'SMPL'",
        "UPDATE pairs SET state = 'P_NONE'",
        "UPDATE pairs SET state = 'S_PAIR' WHERE number = 1",
        "UPDATE pairs SET error = 'why'",
        "UPDATE pairs SET peer_lun = -1",
        "DELETE FROM pairs",
        "UPDATE consistency_groups SET journal = NULL",
        "UPDATE consistency_groups SET mode = 'later'",
        "UPDATE consistency_groups SET restored = '1'",
        "UPDATE consistency_groups SET epoch = '00000000000000ff'",
    ],
)
def test_damage_is_refused(database: Database, damage: str) -> None:
    database.holding(GROUP, State.P_PAIR, State.P_PAIR)
    database.connection.execute(damage)
    with pytest.raises(ValueError, match=r"tables\.db: pairs: "):
        Pairs.of(read_pairs(database.connection, len(MIGRATIONS)))


STEPS = st.lists(
    st.tuples(
        st.sampled_from([*HAPPENINGS, None]),
        st.sampled_from([None, 0, 1]),
        st.booleans(),
        st.booleans(),
    ),
    max_size=25,
)


@settings(max_examples=examples(40), deadline=None)
@given(STEPS)
def test_two_sides_that_are_told_together_agree_and_the_tables_have_what_they_show(
    steps: list[tuple[Happening | None, int | None, bool, bool]],
) -> None:
    """Whatever is told, to both or to one alone, they meet: then states are settled and generations the same."""
    asyncio.run(told_and_met(steps))


async def told_and_met(steps: list[tuple[Happening | None, int | None, bool, bool]]) -> None:
    sides = (Database(), Database())
    tables = tuple(side.pairs() for side in sides)
    for table, side, operation in zip(tables, sides, CREATE, strict=True):
        await table.create(GROUP, operation, 1.0, side.save)
    for happening, pair, alone_here, commits in steps:
        rows = [table.group("oradb") for table in tables]
        shows = [PeerRows() if each is None else PeerRows.of(each) for each in rows]
        for at in (0, 1):
            save = sides[at].save if commits else fail
            if happening is None or happening in CREATE or (at and alone_here):
                continue
            peer = None if alone_here else shows[1 - at]
            try:
                await tables[at].happen("oradb", happening, peer, AT, save, pair)
            except NotSavedError:
                assert tables[at].group("oradb") is rows[at]
            assert shown(tables[at]) == shown(sides[at].pairs())
        for at in (0, 1, 0, 1):
            other = tables[1 - at].group("oradb")
            seen = PeerRows() if other is None else PeerRows.of(other)
            await tables[at].meet("oradb", seen, AT, sides[at].save)
        here, there = (table.group("oradb") for table in tables)
        if here is not None and there is not None:
            assert here.generation == there.generation
            for number in here.states.keys() & there.states.keys():
                assert settled(here.states[number], there.states[number])
    for side in sides:
        side.close()
