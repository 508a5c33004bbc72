"""What pairsplit and pairresync say where they do nothing: one line, with the way out of it."""

from __future__ import annotations

from arrayd.commands.results import Result
from arrayd.replication.statuses import PEER_SILENT, State
from tests.host.pair_runs import HALF, Lab, lab

__all__ = ["lab"]


def test_each_refusal_is_one_line_that_says_what_to_do(lab: Lab) -> None:
    lab.two.put(State.P_PSUS, State.S_SSWS)
    assert lab.bad("pairresync -g oradb") == (
        135,
        "remote: the S-VOL was taken over and its data lead: pairresync -swaps at its side, or -swapp at the P-VOL's",
    )
    assert lab.bad("pairresync -g oradb -swaps") == (
        135, "primary: this side has the P-VOL: pairresync -swapp, or -swaps at the S-VOL's side",
    )  # fmt: skip
    lab.two.put(State.SMPL, State.SMPL)
    assert lab.bad("pairsplit -g oradb") == (135, "primary: the volume is in no pair: paircreate makes one")
    lab.two.put(State.P_PSUS, State.SMPL)
    assert lab.bad("pairresync -g oradb") == (135, f"remote: data, log: {HALF}")
    lab.two.put(State.P_PSUS, State.S_SSUS)
    (row,) = lab.two["remote"].pairs.groups()
    lab.two.change("remote", pairs=row.pairs[:1])
    assert lab.bad("pairresync -g oradb") == (135, f"remote: log: {HALF}")
    assert lab.good("pairsplit -g oradb -S") == ""


def test_a_resync_of_running_pairs_says_that_the_other_array_is_silent(lab: Lab) -> None:
    """Whether the other side runs, too, nobody knows."""
    for here, there in ((State.P_PAIR, State.S_PAIR), (State.P_COPY, State.S_COPY)):
        lab.two.put(here, there)
        lab.two.gone = {"remote"}
        code, reason = lab.bad("pairresync -g oradb")
        assert (code, reason.endswith(PEER_SILENT.text)) == (Result.UNREACHABLE, True)
        assert reason.startswith("remote: nobody listens, last heard of 2026-11-28 09:22:40.500 UTC: ")
