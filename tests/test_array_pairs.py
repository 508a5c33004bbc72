"""When an array takes up its pairs, and when it lets go of them: hosts never see a volume of a pair as a plain one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from arrayd import array
from arrayd.array import BOOT_BYTES, StartError
from arrayd.estate.luns import Luns
from arrayd.estate.volumes import Volumes
from arrayd.link.peers import Links
from arrayd.replication.room import Replication, ReplicationError
from arrayd.scsi.target import ScsiTarget
from tests.lab.array import Place, place
from tests.lab.disk import disk

__all__ = ["disk", "place"]


def noting(monkeypatch: pytest.MonkeyPatch, calls: list[str], owner: type, name: str, what: str) -> None:
    real: Callable[..., Any] = getattr(owner, name)

    def noted(*arguments: Any, **named: Any) -> Any:
        calls.append(what)
        return real(*arguments, **named)

    monkeypatch.setattr(owner, name, noted)


async def test_pairs_are_taken_up_before_hosts_and_arrays_see_volumes_and_end_while_these_are_open(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for owner, name, what in [
        (Volumes, "open", "volumes open"),
        (Replication, "start", "pairs begin"),
        (Links, "start", "links begin"),
        (Luns, "show", "LUNs are shown"),
        (ScsiTarget, "stop", "hosts' tasks end"),
        (Replication, "stop", "pairs end"),
        (Volumes, "close", "volumes close"),
    ]:
        noting(monkeypatch, calls, owner, name, what)
    async with place.running():
        assert calls == ["volumes open", "pairs begin", "links begin", "LUNs are shown"]
        calls.clear()
    assert calls == ["hosts' tasks end", "pairs end", "volumes close"]


async def test_an_array_whose_pairs_cannot_be_guarded_does_not_start(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(_room: Replication) -> None:
        raise ReplicationError("group oradb: no such volume")

    monkeypatch.setattr(Replication, "start", start)
    with pytest.raises(StartError, match="group oradb: no such volume"):
        async with place.running():
            pass


async def test_the_boot_is_told_apart_by_what_the_machine_says(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    said = place.folder / "boot_id"
    monkeypatch.setattr(array, "BOOT_ID", said)
    said.write_text("01234567-89ab-cdef-0123-456789abcdef\n")
    assert array._boot() == bytes.fromhex("0123456789abcdef" * 2)
    for nothing in ("no boot id", ""):
        said.write_text(nothing)
        assert len(array._boot()) == BOOT_BYTES
        assert array._boot() != array._boot()
    said.unlink()
    assert array._boot() != array._boot()
