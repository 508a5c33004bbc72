"""What the path table says of groups, as the pair verbs take it: who drives, and mistakes of one group alone."""

from __future__ import annotations

import pytest

from arrayd.commands.results import Result
from tests.host.pair_runs import Lab, lab

__all__ = ["lab"]

WRONG = """\
  other:
    volumes:
      data: {primary: 30, remote: 30}
    legs:
      - {from: primary, to: remote, mode: later}
"""
REASON = "groups.other.legs[0].mode: later: expected async or sync"


@pytest.mark.parametrize(
    ("said", "options", "driver"),
    [("", "", "arrays"), ("    driver: host\n", "", "host"), ("    driver: host\n", "--driver arrays", "arrays"),
     ("", "--driver host", "host")],
)  # fmt: skip
def test_who_drives(lab: Lab, said: str, options: str, driver: str) -> None:
    lab.file.write_text(lab.file.read_text() + said)
    lab.good(f"paircreate -g oradb {options}")
    assert [array.told[-1][1]["driver"] for array in lab.two.arrays.values()] == [driver, driver]


def test_a_mistake_in_another_group_is_in_nobodys_way(lab: Lab) -> None:
    lab.file.write_text(lab.file.read_text() + WRONG)
    assert lab.good("paircreate -g oradb") == ""
    assert len(lab.good("pairdisplay -g oradb").splitlines()) == 4
    assert lab.bad("pairdisplay -g other") == (Result.USAGE, f"{lab.file}: {REASON}")
    ran = lab.run("arrays")
    assert (ran.code, ran.error) == (Result.USAGE, f"arrayctl: {lab.file}: {REASON}\n")
    assert len(ran.out.splitlines()) == 2
