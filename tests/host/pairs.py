"""A group with its two sides, and what these say of it: for tests of pages and waits."""

from __future__ import annotations

from typing import Any

from arrayd.host.groups import Group, GroupVolume, Leg, Mode
from arrayd.host.pair_status import PairStatus, parse
from arrayd.replication.statuses import State

GROUP = Group(
    name="oradb",
    volumes=(GroupVolume("data", {"primary": 0, "remote": 5}), GroupVolume("log", {"primary": 1, "remote": 6})),
    journals={"primary": 20},
    legs=(Leg("primary", "remote", Mode.ASYNC),),
)
LUNS = {"primary": (0, 1), "remote": (5, 6)}
SERIALS = {"primary": "A1", "remote": "B2"}


def answer(array: str, *states: State, **more: Any) -> dict[str, Any]:
    """What `array` says, as JSON has it: its volumes show `states`, or both the one."""
    shown = states * 2 if len(states) == 1 else states
    rows = [
        {"lun": lun, "state": str(state), "fence": "ASYNC", "percent": 100, "ctg": 1, "jid": 3, "number": number}
        if state is not State.SMPL
        else {"lun": lun, "state": "SMPL"}
        for number, (lun, state) in enumerate(zip(LUNS[array], shown, strict=True))
    ]
    told = {"array": array, "serial": SERIALS[array], "asynchronous": True, "generation": 4, "pairs": rows}
    return told | {"journals": []} | more


def said(array: str, *states: State, **more: Any) -> PairStatus:
    """The same, as it is read."""
    return parse(answer(array, *states, **more))
