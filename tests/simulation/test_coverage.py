"""The tables of what runs have met."""

import io
from collections import Counter

from rich.console import Console

from tests.simulation.coverage import EMPTY, MIRRORED, MOMENTS, ONLY_BEFORE, STATUSES, cell, print_tables
from tests.simulation.faults import DOORS, DOORS_OF_CHANGES


def test_what_nobody_met_is_marked() -> None:
    shown = io.StringIO()
    counts = Counter({cell("pairsplit", "PAIR"): 12, "kill before commit": 3, "kill at rest": 1, "host writes": 9})
    rows = ("pairsplit", "stall")
    empty = print_tables(counts, rows, Console(file=shown, width=120, color_system=None))
    (never_made,) = [line for line in shown.getvalue().splitlines() if "stall" in line]
    assert never_made.split() == ["stall", *[EMPTY] * len(STATUSES)]
    (verb,) = [line for line in shown.getvalue().splitlines() if "pairsplit" in line]
    assert verb.split() == ["pairsplit", EMPTY, EMPTY, "12", *[EMPTY] * 6]
    (door,) = [line for line in shown.getvalue().splitlines() if "commit" in line]
    assert door.split() == ["commit", "3", *[EMPTY] * 3]
    doors = {*DOORS, *DOORS_OF_CHANGES}
    cannot_be = sum(door in ONLY_BEFORE for door in doors) * 2
    assert empty == len(rows) * len(STATUSES) - 1 + len(MOMENTS) * len(doors) - 1 - cannot_be


def test_what_a_synchronous_group_never_shows_is_not_missed() -> None:
    shown = io.StringIO()
    rows = (f"pairsplit{MIRRORED}",)
    print_tables(Counter({cell(rows[0], "PAIR"): 7}), rows, Console(file=shown, width=120, color_system=None))
    (verb,) = [line for line in shown.getvalue().splitlines() if "pairsplit" in line]
    assert verb.split() == ["pairsplit", "(sync)", EMPTY, EMPTY, "7", *[EMPTY] * 4]


def test_a_scenario_without_pairs_has_none() -> None:
    assert print_tables(Counter({"kill before commit": 3}), ()) == 0
