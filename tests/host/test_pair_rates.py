"""The limit of the speed of copies, as the verbs tell it to both sides."""

from __future__ import annotations

from arrayd.commands.results import Result
from arrayd.host.pair_commands import Process
from arrayd.replication.statuses import State
from tests.host.pair_runs import Lab, lab

__all__ = ["lab"]


def test_a_limit_of_the_speed_is_set_when_the_pairs_are_resumed(lab: Lab) -> None:
    lab.two.put(State.P_PSUS, State.S_SSUS)
    lab.good("pairresync -g oradb --copy-rate 50MiB")
    assert [array.told[-1] for array in lab.two.arrays.values()] == [
        (Process.PAIR_SET, {"group": "oradb", "copy_rate": 50 << 20})
    ] * 2
    lab.two.put(State.P_PSUS, State.S_SSUS)
    lab.good("pairresync -g oradb --copy-rate 0 -c 9")
    assert lab.two["remote"].told[-1][1] == {"group": "oradb", "copy_rate": 0, "pace": 9}
    code, reason = lab.bad("pairresync -g oradb --copy-rate 50")
    assert code == Result.USAGE
    assert "64KiB at the least; 0: no limit" in reason


def test_a_limit_of_the_speed_is_told_where_there_is_one(lab: Lab) -> None:
    assert lab.good("paircreate -g oradb -vl --copy-rate 1MiB") == ""
    assert [array.told[0][1].get("copy_rate") for array in lab.two.arrays.values()] == [1 << 20, 1 << 20]
