"""paircreate: what both arrays are told, in every state of a pair; what becomes of one side when the other refuses."""

from __future__ import annotations

import re
from itertools import product

import pytest

from arrayd.commands.results import Result
from arrayd.host import pair_making
from arrayd.host.failure import CommandFailed
from arrayd.host.pair_commands import Process
from arrayd.host.pair_making import Wanted, create
from arrayd.replication.meetings import half, settled, together
from arrayd.replication.statuses import PAIRED, Operation, Refusal, Side, State
from tests.host.pair_arrays import ID, JOURNAL_LUN, SIZE
from tests.host.pair_faults import after, losing, refusing
from tests.host.pair_runs import HALF, Lab, lab

__all__ = ["lab"]

NOTHING = ({State.SMPL}, {State.SMPL})
MADE = ({State.P_COPY}, {State.S_COPY})
CREATE = Process.PAIR_CREATE
SIZES = {"peer_size": SIZE, "peer_block_size": 512}


def test_what_both_are_told(lab: Lab) -> None:
    lab.two["remote"].pairs.last_epoch = 7
    assert lab.good("paircreate -g oradb -vl -f async -c 15") == ""
    assert lab.two.states == MADE
    ((process, told),) = lab.two["primary"].told
    ((_, other),) = lab.two["remote"].told
    assert process == CREATE
    assert re.fullmatch("[0-9a-f]{32}", told.pop("id"))
    both = {"group": "oradb", "mode": "async", "pace": 15, "driver": "arrays", "copy": True, "epoch": 8}
    assert told == both | {
        "side": "P", "peer": "remote", "peer_serial": "B2", "journal": 20, "peer_journal": 20,
        "pairs": [
            {"number": 0, "name": "data", "lun": 0, "peer_lun": 5, "peer_volume": "B2:data", **SIZES},
            {"number": 1, "name": "log", "lun": 1, "peer_lun": 6, "peer_volume": "B2:log", **SIZES},
        ],
    }  # fmt: skip
    assert (other["side"], other["peer"], other["peer_serial"]) == ("S", "primary", "A1")
    assert [(pair["number"], pair["lun"], pair["peer_lun"]) for pair in other["pairs"]] == [(0, 5, 0), (1, 6, 1)]
    assert [len(message.requests) for message in lab.two.messages] == [2, 2]


def test_two_groups_have_two_ids(lab: Lab) -> None:
    ids = set()
    for _ in range(3):
        lab.good("paircreate -g oradb -vl")
        ids |= {array.told[0][1]["id"] for array in lab.two.arrays.values()}
        lab.good("pairsplit -g oradb -S")
        for array in lab.two.arrays.values():
            array.told.clear()
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("line", "states"),
    [
        ("-vl", MADE), ("-vr", MADE[::-1]), ("", MADE),
        ("-vl --at remote", MADE[::-1]), ("-vr --at remote", MADE), ("--at remote", MADE),
    ],
)  # fmt: skip
def test_the_p_vols_are_where_it_is_asked(lab: Lab, line: str, states: tuple[set[State], set[State]]) -> None:
    assert lab.good(f"paircreate -g oradb {line}") == ""
    assert lab.two.states == states


def test_without_a_copy(lab: Lab) -> None:
    lab.good("paircreate -g oradb -vl -nocopy --driver host")
    assert [(array.told[0][1]["copy"], array.told[0][1]["driver"]) for array in lab.two.arrays.values()] == [
        (False, "host")
    ] * 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("-vl -vr", "-vl and -vr are two directions: one of them"),
        ("-f never", "-f never: expected async, or no -f: groups.oradb.legs[0].mode: async"),
        ("-f data", "-f data: expected async, or no -f: groups.oradb.legs[0].mode: async"),
        ("-f ever", "Invalid value for '-f': 'ever' is not one of 'never', 'data', 'status', 'async'"),
        ("-c 0", "Invalid value for '-c'"),
        ("-jp x", "Invalid value for '-jp'"),
        ("--driver me", "Invalid value for '--driver'"),
    ],
)
def test_a_wrong_command_line_is_told(lab: Lab, line: str, reason: str) -> None:
    code, told = lab.bad(f"paircreate -g oradb {line}")
    assert (code, reason in told) == (Result.USAGE, True)
    assert lab.two.messages == []


# -- states ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [Operation.PAIRCREATE_VL, Operation.PAIRCREATE_VR])
def test_in_every_state(lab: Lab, operation: Operation) -> None:
    wanted = Wanted("primary" if operation is Operation.PAIRCREATE_VL else "remote")
    for here, there in product(State, State):
        if not settled(here, there):
            continue
        lab.two.put(here, there)
        after_it = together(here, there, operation, consistent=True)
        if isinstance(after_it, Refusal) or half(here, there):
            with pytest.raises(CommandFailed) as caught:
                create(lab.arrays(), wanted)
            assert caught.value.result == Result.CONFLICT
            assert lab.two.states == ({here}, {there})
        else:
            create(lab.arrays(), wanted)
            assert lab.two.states == ({after_it[0]}, {after_it[1]}), (here, there)


def test_refusals_say_what_to_do(lab: Lab) -> None:
    lab.two.put(State.P_PSUS, State.S_SSUS)
    assert lab.bad("paircreate -g oradb -vl") == (Result.CONFLICT, f"primary: data: {PAIRED.text}")
    lab.two.put(State.P_PAIR, State.SMPL)
    assert lab.bad("paircreate -g oradb -vl") == (Result.CONFLICT, f"remote: data: {HALF}")
    lab.two.put(State.SMPL, State.SMPL)
    lab.two.gone = {"remote"}
    code, reason = lab.bad("paircreate -g oradb -vl")
    assert code == Result.UNREACHABLE
    assert reason == (
        "remote: nobody listens, last heard of 2026-11-28 09:22:40.500 UTC: "
        "a pair is made on both arrays: again when both answer"
    )
    assert lab.two["primary"].told == []


def test_a_group_that_has_grown_gets_the_pairs_that_are_new(lab: Lab) -> None:
    lab.two.put(State.P_PAIR, State.S_PAIR)
    lab.good("pairsplit -g oradb -S -d data")
    assert lab.good("paircreate -g oradb -vl") == ""
    assert [array.states for array in lab.two.arrays.values()] == [
        {0: State.P_COPY, 1: State.P_PAIR}, {0: State.S_COPY, 1: State.S_PAIR},
    ]  # fmt: skip
    assert lab.two["primary"].told[-1][1]["id"] == ID.hex()
    lab.two.put(State.P_PAIR, State.S_PAIR)
    lab.good("pairsplit -g oradb -S -d log")
    lab.good("paircreate -g oradb -vl")
    assert lab.two["primary"].told[-1][1]["pairs"][0]["number"] == 1


def test_many_pairs_go_in_several_messages(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_making, "PAIRS_A_MESSAGE", 1)
    lab.good("paircreate -g oradb -vl")
    assert lab.two.states == MADE
    assert [len(array.states) for array in lab.two.arrays.values()] == [2, 2]
    assert len({told["id"] for array in lab.two.arrays.values() for _, told in array.told}) == 1


# -- volumes and journals ----------------------------------------------------------------------------------------------


def test_volumes_have_one_size(lab: Lab) -> None:
    lab.two["remote"].volumes[6] = ("log", SIZE + 512)
    code, reason = lab.bad("paircreate -g oradb -vl")
    assert code == Result.FAILED
    assert reason == ("log: 1048576 bytes on primary, 1049088 bytes on remote: both volumes of a pair have one size")
    assert lab.two.states == NOTHING
    lab.two["remote"].volumes[6] = ("log", SIZE)
    pairs = [
        {"lun": 5 + number, "state": "SMPL", "volume": f"B2:{name}", "size": SIZE, "block_size": 4096}
        for number, name in enumerate(("data", "log"))
    ]
    lab.two["remote"].more = {"pairs": pairs}
    assert lab.bad("paircreate -g oradb -vl") == (
        Result.FAILED,
        "data: 512 bytes on primary, 4096 bytes on remote: both volumes of a pair have one block size",
    )


def test_a_volume_of_another_group_is_named(lab: Lab) -> None:
    role = "the S-VOL of pair log in group other"
    lab.two["remote"].more = {"pairs": [{"lun": 5, "state": "SMPL"}, {"lun": 6, "state": "SMPL", "holder": role}]}
    assert lab.bad("paircreate -g oradb") == (
        Result.CONFLICT,
        f"remote: log: LUN 6 is {role}: another LUN in the path table, or end that first",
    )


def test_a_lun_without_a_volume_is_named(lab: Lab) -> None:
    lab.two["remote"].more = {"pairs": [{"lun": 5, "state": "SMPL"}]}
    assert lab.bad("paircreate -g oradb -vl") == (Result.NOT_FOUND, "remote: no volume at LUN 6: log")
    lab.through_primary_alone()
    lab.two.faults["remote", Process.PAIR_STATUS] = refusing(Result.NOT_FOUND, "LUN 6: there is no volume")
    assert lab.bad("paircreate -g oradb -vl") == (Result.NOT_FOUND, "remote: LUN 6: there is no volume")


def test_journals_by_lun(lab: Lab) -> None:
    for array in lab.two.arrays.values():
        array.journals |= {30: "spare", 31: "other"}
    lab.good("paircreate -g oradb -vr -jp 30 -js 31")
    told = {name: array.told[0][1] for name, array in lab.two.arrays.items()}
    assert (told["remote"]["journal"], told["primary"]["journal"]) == (30, 31)
    assert (told["remote"]["peer_journal"], told["primary"]["peer_journal"]) == (31, 30)
    assert lab.good("paircreate -g oradb -vr -jp 30") == ""


def test_a_journal_that_is_none_is_named(lab: Lab) -> None:
    """With what named it, and what there is instead; nothing is told to the arrays."""
    for options, reason in (
        ("-jp 0", "primary: -jp: LUN 0 is no journal volume that is not used: there is LUN 20"),
        ("-vr -js 7", "primary: -js: LUN 7 is no journal volume that is not used: there is LUN 20"),
        ("-js 7", "remote: -js: LUN 7 is no journal volume that is not used: there is LUN 20"),
    ):
        assert lab.bad(f"paircreate -g oradb {options}") == (Result.NOT_FOUND, reason)
    lab.two["remote"].journals.clear()
    code, reason = lab.bad("paircreate -g oradb")
    assert code == Result.NOT_FOUND
    assert reason.startswith("remote: groups.oradb.journals: LUN 20 is no journal volume that is not used: make one (")
    assert all(array.told == [] for array in lab.two.arrays.values())


def test_a_journal_that_is_not_named_is_one_that_is_not_used(lab: Lab) -> None:
    lab.file.write_text(lab.file.read_text().replace("    journals: {primary: 20, remote: 20}\n", ""))
    lab.two["remote"].journals |= {JOURNAL_LUN - 1: "spare"}
    lab.good("paircreate -g oradb -vl")
    assert [array.told[0][1]["journal"] for array in lab.two.arrays.values()] == [20, 19]


def test_no_journal_is_left(lab: Lab) -> None:
    lab.file.write_text(lab.file.read_text().replace("    journals: {primary: 20, remote: 20}\n", ""))
    lab.two["remote"].journals.clear()
    code, reason = lab.bad("paircreate -g oradb -vl")
    assert code == Result.NOT_FOUND
    assert reason.startswith("remote: no journal volume that is not used: make one (")
    assert lab.two["primary"].told == []


def test_the_journal_of_a_group_is_not_changed_by_more_pairs(lab: Lab) -> None:
    lab.two.put(State.P_PAIR, State.S_PAIR)
    lab.good("pairsplit -g oradb -S -d log")
    lab.two["primary"].journals[30] = "spare"
    code, reason = lab.bad("paircreate -g oradb -vl -jp 30")
    assert code == Result.CONFLICT
    assert reason.startswith("primary: the journal of oradb is LUN 20, not 30")
    assert lab.good("paircreate -g oradb -vl") == ""
    assert lab.bad("paircreate -g oradb -vl -jp 30") == (code, reason)


# -- when one side does not --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refuses", ["primary", "remote"])
def test_what_one_side_refuses_is_taken_back_on_the_other(lab: Lab, refuses: str) -> None:
    lab.two.faults[refuses, CREATE] = refusing(Result.FAILED, "the disk is full")
    assert lab.bad("paircreate -g oradb -vl") == (Result.FAILED, f"{refuses}: the disk is full")
    assert lab.two.states == NOTHING
    assert lab.good("paircreate -g oradb -vl") == ""
    assert lab.two.states == MADE


def test_what_is_taken_back_is_only_what_was_made(lab: Lab) -> None:
    lab.two.put(State.P_PAIR, State.S_PAIR)
    lab.good("pairsplit -g oradb -S -d log")
    lab.two.faults["remote", CREATE] = refusing(Result.FAILED, "the disk is full")
    assert lab.bad("paircreate -g oradb -vl")[0] == Result.FAILED
    assert lab.two.states == ({State.P_PAIR}, {State.S_PAIR})


@pytest.mark.parametrize("loses", ["primary", "remote"])
def test_an_answer_that_is_lost(lab: Lab, loses: str) -> None:
    """The second one's: both have made it. The first one's: the second was not told, so it is taken back."""
    lab.two.faults[loses, CREATE] = losing
    if loses == "remote":
        assert lab.good("paircreate -g oradb -vl") == ""
        assert lab.two.states == MADE
    else:
        code, reason = lab.bad("paircreate -g oradb -vl")
        assert (code, reason.startswith("primary: the time limit passed")) == (Result.EXPIRED, True)
        assert lab.two.states == NOTHING


def test_what_cannot_be_taken_back_is_told(lab: Lab) -> None:
    lab.two.faults["remote", CREATE] = refusing(Result.FAILED, "the disk is full")
    lab.two.faults["primary", Process.PAIR_DELETE] = refusing(Result.BUSY, "too much to do")
    assert lab.bad("paircreate -g oradb -vl") == (
        Result.FAILED, "remote: the disk is full; primary has made its side: pairsplit -S ends it",
    )  # fmt: skip
    assert lab.two.states == ({State.P_COPY}, {State.SMPL})
    assert lab.good("pairsplit -g oradb -S") == ""
    assert lab.two.states == NOTHING


def test_a_side_that_goes_away_meanwhile(lab: Lab) -> None:
    lab.two.faults["primary", CREATE] = after(lambda: lab.two.gone.add("remote"))
    code, reason = lab.bad("paircreate -g oradb -vl")
    assert code == Result.UNDELIVERABLE
    assert lab.two.states == NOTHING, reason


def test_no_state_of_one_pair_is_looked_at_as_another(lab: Lab) -> None:
    """Both directions at once are two groups; one group has one."""
    lab.two.put(State.S_PAIR, State.P_PAIR)
    assert lab.bad("paircreate -g oradb -vl") == (Result.CONFLICT, f"primary: data: {PAIRED.text}")
    assert lab.good("paircreate -g oradb -vr") == ""
    assert Side.P_VOL is next(iter(lab.two.states[1])).side
