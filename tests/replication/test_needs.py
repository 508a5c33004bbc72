"""A configuration that lacks what pairs need is refused, in one line each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from arrayd.replication.group_rows import stored_epoch
from arrayd.replication.needs import lacking
from arrayd.replication.statuses import State
from arrayd.tables.pairs import StoredPairs
from tests.replication.tables import GROUP, MIRROR

ROW = replace(GROUP, pairs=tuple(replace(pair, state=State.S_PAIR) for pair in GROUP.pairs))
STORED = StoredPairs([ROW.stored()], ROW.stored_pairs(ROW.pairs), stored_epoch(1))


@dataclass
class Settings:
    use: str = "data"
    read_only: bool = False


def there() -> dict[str, Settings]:
    return {"v0": Settings(), "v1": Settings(), "j0": Settings("journal"), "more": Settings()}


def test_what_is_there_is_enough() -> None:
    assert lacking(STORED, there()) == []
    assert lacking(StoredPairs(), {}) == []


@pytest.mark.parametrize(
    ("name", "settings", "line"),
    [
        ("v1", None, "volumes.v1: it is not there any more, and is the S-VOL of pair log in group oradb: "),
        ("j0", None, "volumes.j0: it is not there any more, and is the journal of group oradb: "),
        ("v0", Settings("journal"), "volumes.v0.use: journal, and it is the S-VOL of pair data in group oradb: "),
        ("j0", Settings("data"), "volumes.j0.use: data, and it is the journal of group oradb: "),
        (
            "v0",
            Settings(read_only=True),
            "volumes.v0.read_only: true, and it is the S-VOL of pair data in group ",
        ),
    ],
)
def test_what_is_lacking_is_one_line(name: str, settings: Settings | None, line: str) -> None:
    volumes = {other: each for other, each in there().items() if other != name}
    if settings is not None:
        volumes[name] = settings
    (found,) = lacking(STORED, volumes)
    assert found.startswith(line)
    assert found.endswith("in group oradb: pairsplit -S ends it" if "pair" in line else ": pairsplit -S ends it")


def test_a_synchronous_group_needs_no_journal() -> None:
    row = replace(MIRROR, pairs=tuple(replace(pair, state=State.P_PAIR) for pair in MIRROR.pairs))
    stored = StoredPairs([row.stored()], row.stored_pairs(row.pairs), stored_epoch(3))
    assert lacking(stored, {"v3": Settings()}) == []
    assert lacking(stored, {}) == [
        "volumes.v3: it is not there any more, and is the P-VOL of pair data in group mirror: pairsplit -S ends it"
    ]


def test_pairs_of_no_group_are_damage() -> None:
    with pytest.raises(ValueError, match=r"tables\.db: pairs"):
        lacking(StoredPairs([], STORED.pairs), there())
