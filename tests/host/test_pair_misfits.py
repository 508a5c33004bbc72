"""A path table that does not say what the arrays have: it is told, and not taken for volumes in no pair."""

from __future__ import annotations

from typing import Any

import pytest

from arrayd.commands.results import Result
from arrayd.replication.exit_codes import UNCONFORMED
from arrayd.replication.statuses import State
from tests.host.pair_runs import Lab, lab

__all__ = ["lab"]

NO_VOLUME = "LUN 7: there is no volume of this array"
HELD = "remote: LUN 6, log by the path table, is the S-VOL of pair log in group other"
NOT_NAMED = "remote: LUN 6 is in pair log of oradb, and the path table does not name it"
CROSSED = "data: LUN 0 of primary and LUN 6 of remote are not in one pair, as the path table has it"


def held_elsewhere(lab: Lab) -> None:
    pairs: list[dict[str, Any]] = [{"lun": 5, "state": "S-VOL PAIR", "number": 0}, {"lun": 6, "state": "SMPL"}]
    pairs[1]["holder"] = "the S-VOL of pair log in group other"
    lab.two["remote"].more = {"pairs": pairs}


def at_another_lun(lab: Lab) -> None:
    lab.two["remote"].volumes[7] = ("other", 1 << 20)
    lab.file.write_text(lab.file.read_text().replace("remote: 6}", "remote: 7}"))


def turned_round(lab: Lab) -> None:
    text = lab.file.read_text()
    lab.file.write_text(text.replace("remote: 5}", "remote: @}").replace("6}", "5}").replace("@}", "6}"))


@pytest.mark.parametrize(
    ("arranged", "expected"), [(held_elsewhere, HELD), (at_another_lun, NOT_NAMED), (turned_round, CROSSED)]
)
def test_another_volume_than_the_path_table_names(lab: Lab, arranged: Any, expected: str) -> None:
    lab.two.put(State.P_PAIR, State.S_PAIR)
    assert lab.good("pairdisplay -g oradb")
    arranged(lab)
    ran = lab.run("pairdisplay -g oradb")
    assert (ran.code, ran.error.splitlines()[0]) == (UNCONFORMED, f"arrayctl: {expected}")
    for line, code in (("pairvolchk -ss -c", None), ("pairevtwait -s pair -t 1", 0), ("pairevtwait -nowait", 3)):
        ran = lab.run(f"{line} -g oradb")
        assert f"arrayctl: {expected}" in ran.error.splitlines()
        assert code in (None, ran.code)


def test_volumes_that_are_new_in_the_path_table_are_no_mistake(lab: Lab) -> None:
    """They stand aside until paircreate is given again."""
    lab.two.put(State.P_PAIR, State.S_PAIR)
    for array in lab.two.arrays.values():
        array.volumes[30] = ("more", 1 << 20)
    lab.file.write_text(lab.file.read_text().replace("volumes:", "volumes:\n      more: {primary: 30, remote: 30}"))
    assert len(lab.good("pairdisplay -g oradb").splitlines()) == 6


def test_a_lun_that_has_no_volume_is_not_an_array_that_is_gone(lab: Lab) -> None:
    lab.two.put(State.P_PAIR, State.S_PAIR)
    lab.file.write_text(lab.file.read_text().replace("remote: 6}", "remote: 7}"))
    for line in (
        "pairdisplay",
        "pairvolchk --at remote",
        "pairevtwait -nowait -l --at remote",
        "horctakeover --at remote",
    ):
        ran = lab.run(f"{line} -g oradb")
        assert (ran.code, ran.error) == (Result.NOT_FOUND, f"arrayctl: remote: {NO_VOLUME}\n"), line
