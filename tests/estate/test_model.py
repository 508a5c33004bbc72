"""Commands, restarts and reloads in any order, against a model: nothing acknowledged is lost, nothing is half done."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from arrayd.array import Array, StartError
from arrayd.estate.errors import EstateError
from arrayd.estate.ledger import Save
from tests.estate.conftest import RefusedError, files, refuse
from tests.lab.array import Place
from tests.lab.search import examples

pytestmark = pytest.mark.slow

UNIT = 64 * 1024
VOLUMES = ["f", "shared", "v", "w"]
LUNS = list(range(5))
ARRAYS = ["b", "c", "d"]
COMMITS = st.sampled_from([True, True, True, False])
SIZES = st.integers(1, 3)
DATA = st.data()
Pick = TypeVar("Pick")


def pick(data: st.DataObject, good: Iterable[Pick], every: list[Pick]) -> Pick:
    """One of `good`, as a rule; else any."""
    chosen = sorted(good, key=repr)
    sensible = bool(chosen) and data.draw(st.integers(0, 3)) > 0
    return data.draw(st.sampled_from(chosen if sensible else every))


class Model:
    """What there should be; `volumes` in UNITs. What is in the file has numbers and names of its own kind."""

    def __init__(self) -> None:
        self.volumes: dict[str, int] = {}
        self.luns: dict[int, tuple[str, str]] = {}
        self.connections: set[str] = set()
        self.devices: dict[int, str] = {}
        self.file_volumes: dict[str, int] = {"f": 1}
        self.file_luns: dict[int, tuple[str, str]] = {0: ("volume", "f")}

    @property
    def all_luns(self) -> dict[int, tuple[str, str]]:
        return {**self.luns, **self.file_luns}

    def mapped(self, volume: str) -> bool:
        return ("volume", volume) in self.all_luns.values()

    def fits(self, volumes: dict[str, int], luns: dict[int, tuple[str, str]]) -> bool:
        """Whether a file with these goes with what was made by command."""
        known, used = volumes.keys() | self.volumes.keys(), [row for row in luns.values() if row[0] == "volume"]
        return not (
            volumes.keys() & self.volumes.keys()
            or luns.keys() & self.luns.keys()
            or any(
                kind == "volume" and (name not in known or (kind, name) in used) for kind, name in self.luns.values()
            )
        )


class Machine(RuleBasedStateMachine):
    """One array after another in one folder, commanded."""

    parent: Path

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory(prefix="model-", dir=self.parent)
        self.place = Place(Path(self.folder.name))
        self.model = Model()
        self.left_over: set[str] = set()
        """Files of volumes that were in the file: they stay."""
        self.configure()
        self.array = Array(self.place.load())
        self.runner.run(self.array.start())

    def teardown(self) -> None:
        if hasattr(self, "array"):
            self.runner.run(self.array.stop())
            self.runner.close()
            self.folder.cleanup()

    def configure(self) -> None:
        model, config = self.model, self.place.config
        config["volumes"] = {name: {"size": size * UNIT} for name, size in model.file_volumes.items()}
        config["luns"] = {str(number): {kind: name} for number, (kind, name) in model.file_luns.items()}
        config["link"] = {"arrays": {"b": None}, "timeout": 1}

    def command(
        self, commits: bool, good: bool, change: Callable[[Save], Awaitable[None]], then: Callable[[], object]
    ) -> None:
        """Has it done, or refused where it is no good; `then` tells the model."""
        array = self.array

        async def changed() -> str:
            try:
                await change(array.tables.change if commits else refuse)
            except RefusedError:
                return "not committed"
            except EstateError:
                return "refused"
            return "done"

        ended = self.runner.run(changed())
        assert ended == ("refused" if not good else "done" if commits else "not committed")
        if ended == "done":
            then()

    # -- by command --------------------------------------------------------------------------------------------------

    @rule(data=DATA, size=SIZES, commits=COMMITS)
    def create(self, data: st.DataObject, size: int, commits: bool) -> None:
        model, volumes = self.model, self.array.estate.volumes
        good = set(VOLUMES) - model.volumes.keys() - model.file_volumes.keys() - self.left_over
        name = pick(data, good, VOLUMES)
        self.command(
            commits,
            name in good,
            lambda save: volumes.create(name, {"size": size * UNIT}, save),
            lambda: model.volumes.update({name: size}),
        )

    @rule(data=DATA, size=SIZES, commits=COMMITS)
    def resize(self, data: st.DataObject, size: int, commits: bool) -> None:
        model, resize = self.model, self.array.estate.volumes.resize
        good = {name for name, old in model.volumes.items() if old <= size}
        name = pick(data, good, VOLUMES)
        self.command(
            commits,
            name in good,
            lambda save: resize(name, size * UNIT, save),
            lambda: model.volumes.update({name: size}),
        )

    @rule(data=DATA, commits=COMMITS)
    def delete(self, data: st.DataObject, commits: bool) -> None:
        model, delete = self.model, self.array.estate.volumes.delete
        good = {name for name in model.volumes if not model.mapped(name)}
        name = pick(data, good, VOLUMES)
        self.command(commits, name in good, lambda save: delete(name, save), lambda: model.volumes.pop(name))

    @rule(data=DATA, commits=COMMITS)
    def map_volume(self, data: st.DataObject, commits: bool) -> None:
        model = self.model
        good = {name for name in model.volumes.keys() | model.file_volumes.keys() if not model.mapped(name)}
        name = pick(data, good, VOLUMES)
        self.map(data, ("volume", name), {"volume": name}, name in good, commits)

    @rule(data=DATA, commits=COMMITS)
    def map_virtual(self, data: st.DataObject, commits: bool) -> None:
        good = self.model.connections | {"b"}
        name = pick(data, good, ARRAYS)
        self.map(data, ("virtual", name), {"virtual": {"array": name, "lun": 0}}, name in good, commits)

    @rule(data=DATA, commits=COMMITS)
    def map_device(self, data: st.DataObject, commits: bool) -> None:
        self.map(data, ("command_device", ""), {"command_device": {}}, True, commits)

    def map(
        self, data: st.DataObject, row: tuple[str, str], settings: dict[str, Any], good: bool, commits: bool
    ) -> None:
        model, luns = self.model, self.array.estate.luns
        free = set(LUNS) - model.all_luns.keys()
        lun = pick(data, free, LUNS)
        self.command(
            commits,
            good and lun in free,
            lambda save: luns.map(lun, settings, save),
            lambda: model.luns.update({lun: row}),
        )

    @rule(data=DATA, commits=COMMITS)
    def unmap(self, data: st.DataObject, commits: bool) -> None:
        model, luns = self.model, self.array.estate.luns
        good = model.luns.keys() - model.devices.keys()
        lun = pick(data, good, LUNS)
        self.command(commits, lun in good, lambda save: luns.unmap(lun, save), lambda: model.luns.pop(lun))

    @rule(data=DATA, commits=COMMITS)
    def connect(self, data: st.DataObject, commits: bool) -> None:
        model, add = self.model, self.array.estate.connections.add
        good = set(ARRAYS) - model.connections - {"b"}
        name = pick(data, good, ARRAYS)
        self.command(
            commits, name in good, lambda save: add(name, "127.0.0.1:1", save), lambda: model.connections.add(name)
        )

    @rule(data=DATA, commits=COMMITS)
    def disconnect(self, data: st.DataObject, commits: bool) -> None:
        model, remove = self.model, self.array.estate.connections.remove
        good = {name for name in model.connections if ("virtual", name) not in model.luns.values()}
        name = pick(data, good, ARRAYS)
        self.command(commits, name in good, lambda save: remove(name, save), lambda: model.connections.remove(name))

    @rule(data=DATA, name=st.sampled_from(ARRAYS), commits=COMMITS)
    def add_device(self, data: st.DataObject, name: str, commits: bool) -> None:
        model, add = self.model, self.array.estate.devices.add
        good = {lun for lun, (kind, _) in model.all_luns.items() if kind == "virtual"} - model.devices.keys()
        lun = pick(data, good, LUNS)
        self.command(commits, lun in good, lambda save: add(name, lun, save), lambda: model.devices.update({lun: name}))

    @rule(data=DATA, commits=COMMITS)
    def remove_device(self, data: st.DataObject, commits: bool) -> None:
        model, remove = self.model, self.array.estate.devices.remove
        lun = pick(data, model.devices.keys(), LUNS)
        name = pick(data, {model.devices[lun]} if lun in model.devices else (), ARRAYS)
        good = model.devices.get(lun) == name
        self.command(commits, good, lambda save: remove(name, lun, save), lambda: model.devices.pop(lun))

    # -- by the file -------------------------------------------------------------------------------------------------

    @rule(restarts=st.booleans(), f=SIZES, shared=st.integers(0, 3), at=st.sampled_from([None, 0, 1, 2]))
    def change_the_file(self, restarts: bool, f: int, shared: int, at: int | None) -> None:
        """By a reload, or by a restart: both, or neither, take what goes with the rows."""
        model = self.model
        volumes = {"f": f} | ({"shared": shared} if shared else {})
        luns: dict[int, tuple[str, str]] = {} if at is None else {at: ("volume", "shared" if shared else "f")}
        volumes |= {name: max(size, model.file_volumes.get(name, 0)) for name, size in volumes.items()}
        if "shared" in self.left_over and shared:
            return
        before = model.file_volumes, model.file_luns
        model.file_volumes, model.file_luns = volumes, luns
        self.configure()
        good = model.fits(volumes, luns)
        if self.runner.run(self.change(restarts)) != good:
            raise AssertionError(f"expected {'success' if good else 'a conflict'}")
        if good:
            self.left_over |= before[0].keys() - volumes.keys()
            return
        model.file_volumes, model.file_luns = before
        self.configure()
        if restarts:
            assert self.runner.run(self.change(restarts))

    async def change(self, restarts: bool) -> bool:
        try:
            if restarts:
                await self.array.stop()
                self.array = Array(self.place.load())
                await self.array.start()
            else:
                await self.array.reload(self.place.load())
        except StartError:
            return False
        return True

    # -- what is always so -------------------------------------------------------------------------------------------

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        if not hasattr(self, "array"):
            return
        model, estate = self.model, self.array.estate
        volumes = {row.name: (row.source, row.volume.size, row.volume.file.size) for row in estate.volumes.rows()}
        by_source = (("file", model.file_volumes), ("command", model.volumes))
        assert volumes == {
            name: (source, size * UNIT, size * UNIT) for source, sizes in by_source for name, size in sizes.items()
        }
        assert files(self.place) == {f"{name}.img" for name in (*volumes, *self.left_over)}
        assert {row.lun for row in estate.luns.rows() if row.source == "command"} == model.luns.keys()
        assert self.array._target.units.keys() == model.all_luns.keys()
        assert {row.name for row in estate.connections.rows()} == model.connections | {"b"}
        assert self.array._links.peers.keys() == model.connections | {"b"}
        assert {row.lun: row.array for row in estate.devices.rows() if row.array != "a"} == model.devices
        assert estate.luns.devices.keys() == {n for n, (kind, _) in model.luns.items() if kind == "command_device"}


@pytest.mark.timeout(240)
def test_commands_restarts_and_reloads_in_any_order(disk: Path) -> None:
    machine = type("MachineHere", (Machine,), {"parent": disk})
    settings = hypothesis.settings(
        max_examples=examples(20), stateful_step_count=30, deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    run_state_machine_as_test(machine, settings=settings)
