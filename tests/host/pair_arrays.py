"""Two arrays that are not there, for tests of the pair verbs: behind the seam where the host hands messages to a LUN.
Their rows are the pair table's (`replication/pairs.py`) in memory, so that what they answer is what the tables of
statuses and meetings say; nothing is copied. A message finds its way as it does in an array (`commands/routing.py`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from arrayd.commands import messages
from arrayd.commands.formats import PAGE_BYTES
from arrayd.commands.lanes import answer_of
from arrayd.commands.messages import Message, Method, decode_message
from arrayd.commands.results import Result
from arrayd.commands.routing import Nowhere, Place, There, next_step
from arrayd.commands.transit import Item
from arrayd.host.pair_commands import Process
from arrayd.host.transport import Unreachable
from arrayd.origin import Origin
from arrayd.replication.group_rows import Driver, Fence, GroupRow, Mode, PairRow, PeerRows
from arrayd.replication.pairs import Pairs, PairsError
from arrayd.replication.statuses import Operation, Refusal, Side, State
from arrayd.replication.transitions import NOT_MET, Circumstances

NAMES = ("primary", "remote")
GROUP = "oradb"
VOLUMES = {"data": {"primary": 0, "remote": 5}, "log": {"primary": 1, "remote": 6}}
JOURNAL_LUN = 20
SIZE = 1 << 20
ID = bytes(range(16))
MEETINGS_MAX = 4

HOSTS = """\
site: primary
initiator: iqn.2026-11.io.arrayd:arrayctl
paths:
  primary: {direct: "iscsi://127.0.0.1:3260/iqn.2026-11.io.arrayd:primary/9"}
  remote:  {direct: "iscsi://127.0.0.1:3261/iqn.2026-11.io.arrayd:remote/9", through: primary}
groups:
  oradb:
    volumes:
      data: {primary: 0, remote: 5}
      log:  {primary: 1, remote: 6}
    journals: {primary: 20, remote: 20}
    legs:
      - {from: primary, to: remote, mode: async}
"""


class Refused(Exception):
    """What an array answers instead."""

    def __init__(self, result: Result, reason: str) -> None:
        super().__init__(reason)
        self.result = result


async def saved(_work: object) -> None:
    """Nothing is kept."""


@dataclass(eq=False)
class FakeArray:
    """One array. `told` is what it was told, in order, but for what it was asked."""

    name: str
    serial: str
    runner: asyncio.Runner
    pairs: Pairs = field(default_factory=lambda: Pairs(last_epoch=3))
    volumes: dict[int, tuple[str, int]] = field(default_factory=dict)
    journals: dict[int, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    """Told in pair-status besides, or instead."""
    told: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    @property
    def row(self) -> GroupRow | None:
        return self.pairs.group(GROUP)

    @property
    def asynchronous(self) -> bool:
        return self.row is None or self.row.mode is Mode.ASYNC

    @property
    def states(self) -> dict[int, State]:
        return {} if self.row is None else self.row.states

    @property
    def rows(self) -> PeerRows:
        return PeerRows() if self.row is None else PeerRows.of(self.row)

    # -- commands ------------------------------------------------------------------------------------------------------

    def execute(self, process: int, told: dict[str, Any]) -> dict[str, Any]:
        """Raises Refused."""
        if process == Process.PAIR_STATUS:
            return self._status(told["luns"])
        self.told.append((process, told))
        row: GroupRow | None
        if process == Process.PAIR_CREATE:
            row = self._create(told)
        elif process == Process.PAIR_SET:
            row = self.runner.run(self.pairs.keep(GROUP, saved, pace=told.get("pace")))
        else:
            row = self._happen(process, told)
        states = {} if row is None else {str(number): str(state) for number, state in row.states.items()}
        edited = {"group": GROUP, "generation": 0 if row is None else row.generation, "states": states}
        return edited | ({"sequence": 812} if process == Process.PAIR_TAKEOVER else {})

    def _status(self, luns: list[int]) -> dict[str, Any]:
        for lun in luns:
            if lun not in self.volumes:
                raise Refused(Result.NOT_FOUND, f"LUN {lun}: there is no volume of this array")
        row = self.row
        by_volume = {} if row is None else {pair.volume: pair for pair in row.pairs}
        pairs = []
        for lun, (name, size) in self.volumes.items():
            pair = by_volume.get(name)
            if pair is None and lun not in luns:
                continue
            told = {"lun": lun, "state": "SMPL", "volume": f"{self.serial}:{name}", "size": size, "block_size": 512}
            if pair is not None:
                assert row is not None
                fence = "ASYNC" if self.asynchronous else row.fence.upper()
                told |= {"state": str(pair.state), "number": pair.number, "name": pair.name, "fence": fence}
            pairs.append(told)
        used = [] if row is None else [lun for lun, name in self.journals.items() if name == row.journal]
        free = [{"lun": lun, "name": name} for lun, name in self.journals.items() if lun not in used]
        told = {
            "array": self.name, "serial": self.serial, "asynchronous": self.asynchronous, "pairs": pairs,
            "generation": 0 if row is None else row.generation, "group": GROUP,
            "id": None if row is None else row.id.hex(), "last_epoch": self.pairs.last_epoch,
            "consistent": False if row is None else row.consistent, "contact": 1795857760.5,
            "journals": [{"jid": 1, "status": "PJNN", "lun": lun, "links": 1} for lun in used],
            "journal_candidates": free,
        }  # fmt: skip
        return told | self.more

    def _create(self, told: dict[str, Any]) -> GroupRow:
        try:
            pairs = tuple(
                PairRow(
                    pair["number"], pair["name"], self.volumes[pair["lun"]][0], pair["peer_lun"], pair["peer_volume"]
                )
                for pair in told["pairs"]
            )
            journal = self.journals[told["journal"]] if told["mode"] == "async" else None
        except KeyError as error:
            raise Refused(Result.NOT_FOUND, f"no volume at LUN {error}") from error
        row = GroupRow(
            bytes.fromhex(told["id"]), told["group"], 1, journal, told["peer"], told["peer_serial"],
            told.get("peer_journal"), told["epoch"], pairs, Mode(told["mode"]), told["pace"], Driver(told["driver"]),
            fence=Fence(told.get("fence", Fence.NEVER)),
        )  # fmt: skip
        operation = Operation.PAIRCREATE_VL if told["side"] == "P" else Operation.PAIRCREATE_VR
        try:
            return self.runner.run(self.pairs.create(row, operation, 0.0, saved))
        except PairsError as error:
            raise Refused(Result.CONFLICT, str(error)) from error

    def _happen(self, process: int, told: dict[str, Any]) -> GroupRow | None:
        peer = _peer_rows(told["rows"])
        if self.row is not None and told["generation"] != self.row.generation:
            raise Refused(Result.CONFLICT, NOT_MET.text)
        circumstances = Circumstances(0.0, epoch=told.get("epoch"))
        happening = self._operation(process, told)
        change = self.pairs.happen(GROUP, happening, peer, circumstances, saved, told.get("pair"))
        outcome = self.runner.run(change)
        if isinstance(outcome, Refusal):
            raise Refused(Result.CONFLICT, outcome.text)
        return outcome

    def _operation(self, process: int, told: dict[str, Any]) -> Operation:
        if process == Process.PAIR_SPLIT:
            return Operation.PAIRSPLIT_RW if told["writable"] else Operation.PAIRSPLIT
        if process == Process.PAIR_DELETE:
            return Operation.PAIRSPLIT_S
        if process == Process.PAIR_RESYNC:
            swaps = {
                None: Operation.PAIRRESYNC,
                "swaps": Operation.PAIRRESYNC_SWAPS,
                "swapp": Operation.PAIRRESYNC_SWAPP,
            }
            return swaps[told["swap"]]
        if process == Process.PAIR_SWAP:
            return Operation.SWAP
        assert process == Process.PAIR_TAKEOVER
        here = self.row.side if self.row is not None else Side.NONE
        return Operation.PVOL_PSUE if here is Side.P_VOL else Operation.SVOL_SSUS


def _peer_rows(told: dict[str, Any] | None) -> PeerRows | None:
    if told is None:
        return None
    by_name = {str(state): state for state in State}
    states = {int(number): by_name[state] for number, state in told["states"].items()}
    return PeerRows(states, told["generation"], told["consistent"])


Fault = Callable[[Callable[[], dict[str, Any]]], dict[str, Any]]
"""Is given what an array would do, and does it or not."""


class TwoArrays:
    """Both arrays and what is between them. `gone` are not to be reached; `link`: whether they reach each other."""

    def __init__(self, runner: asyncio.Runner) -> None:
        """`runner` runs what the tables do."""
        self.runner = runner
        self.arrays = {
            name: FakeArray(
                name,
                serial,
                volumes={luns[name]: (volume, SIZE) for volume, luns in VOLUMES.items()},
                journals={JOURNAL_LUN: "jnl"},
                runner=runner,
            )
            for name, serial in zip(NAMES, ("A1", "B2"), strict=True)
        }
        self.link = True
        self.gone: set[str] = set()
        self.going: set[str] = set()
        """They are gone as soon as an answer has been fetched."""
        self.faults: dict[tuple[str, int], Fault] = {}
        """By array and process number: once."""
        self.messages: list[Message] = []
        self.asked: list[str] = []
        """The array that each message was handed to."""
        self.seconds = 0.0
        """The time of the clock that only goes forward."""
        self.meets = True
        """Whether the arrays meet while the host pauses."""

    def __getitem__(self, name: str) -> FakeArray:
        return self.arrays[name]

    def put(self, here: State, there: State, *, consistent: bool = True, generation: int = 4) -> None:
        """Both sides show these: `here` is primary."""
        for name, peer, state in (("primary", "remote", here), ("remote", "primary", there)):
            array = self.arrays[name]
            groups = [] if state is State.SMPL else [self._row(name, peer, state, consistent, generation)]
            array.pairs = Pairs(groups, last_epoch=3)

    def _row(self, name: str, peer: str, state: State, consistent: bool, generation: int) -> GroupRow:
        serial = self.arrays[peer].serial
        pairs = tuple(
            PairRow(number, volume, volume, luns[peer], f"{serial}:{volume}", state)
            for number, (volume, luns) in enumerate(VOLUMES.items())
        )
        return GroupRow(
            ID, GROUP, 1, "jnl", peer, serial, JOURNAL_LUN, 3, pairs, generation=generation, consistent=consistent
        )

    def mirror(self, name: str, fence: Fence) -> None:
        """One side's group is a synchronous one of this level."""
        self.change(name, mode=Mode.SYNC, fence=fence, journal=None, peer_journal=None)

    def change(self, name: str, **values: Any) -> None:
        """One side's row has other values."""
        array = self.arrays[name]
        (row,) = array.pairs.groups()
        array.pairs = Pairs([replace(row, **values)], array.pairs.last_epoch)

    def ahead(self, name: str) -> None:
        """One side is a generation ahead of the other."""
        (row,) = self.arrays[name].pairs.groups()
        self.change(name, generation=row.generation + 1)

    def meet(self) -> None:
        """The arrays look at each other until nothing changes."""
        for _ in range(MEETINGS_MAX):
            rows = {name: array.rows for name, array in self.arrays.items()}
            for name, peer in (NAMES, NAMES[::-1]):
                self.runner.run(self.arrays[name].pairs.meet(GROUP, rows[peer], Circumstances(0.0), saved))

    @property
    def states(self) -> tuple[set[State], set[State]]:
        """What primary shows, and remote."""
        shown = [set(self.arrays[name].states.values()) or {State.SMPL} for name in NAMES]
        return shown[0], shown[1]

    # -- the host's doors ----------------------------------------------------------------------------------------------

    def connections(self, _table: object) -> TwoArrays:
        """Stands for the host's connections."""
        return self

    def close(self) -> None:
        """Nothing is open."""

    def transport(self, array: str, _lun: int) -> FakeTransport:
        return FakeTransport(self, array)

    def monotonic(self) -> float:
        return self.seconds

    def pause(self, seconds: float) -> None:
        self.seconds += seconds
        if self.meets and self.link and not self.gone:
            self.meet()

    # -- messages ------------------------------------------------------------------------------------------------------

    def carry(self, at: str, message: Message) -> list[messages.Ended]:
        """What becomes of a message at an array, as in `commands/transit.py`."""
        ended: list[messages.Ended] = []
        left: Message | None = message
        while left is not None:
            step = next_step(left, self._place(at))
            if isinstance(step, Nowhere):
                return ended + _failed(at, left, step.result, step.reason)
            if isinstance(step, There):
                if not self.link or step.array in self.gone:
                    reason = f"{step.array} cannot be reached: no link"
                    return ended + _failed(at, step.message, Result.UNDELIVERABLE, reason)
                return ended + self.carry(step.array, step.message)
            result, edited = self._execute(at, step.request.process, step.request.input)
            ended.append(messages.Ended(at, step.request.process, step.request.identification, result, edited))
            left = step.rest
            if left is not None and result != Result.OK and not left.goes_on:
                return ended + _failed(at, left, Result.NOT_EXECUTED, "a command before it failed")
        return ended

    def _place(self, at: str) -> Place:
        others = {name: name for name in NAMES if name != at}
        return Place(at, self.arrays[at].serial, Method.DELETE, others.get, lambda _: self.link)

    def _execute(self, at: str, process: int, input: bytes) -> tuple[Result, bytes]:
        array, told = self.arrays[at], json.loads(input)
        fault = self.faults.pop((at, process), None)
        try:
            edited = fault(lambda: array.execute(process, told)) if fault else array.execute(process, told)
        except Refused as refused:
            return refused.result, json.dumps({"error": str(refused), "at": at}).encode()
        return Result.OK, json.dumps(edited).encode()


def _failed(at: str, message: Message, result: Result, reason: str) -> list[messages.Ended]:
    edited = json.dumps({"error": reason, "at": at}).encode()
    first = True
    ended = []
    for request in message.requests:
        why = result if first else Result.NOT_EXECUTED
        ended.append(messages.Ended(at, request.process, request.identification, why, edited))
        first = False
    return ended


class FakeTransport:
    """The way to one array. There is no command device: all goes by WRITE BUFFER and READ BUFFER."""

    def __init__(self, between: TwoArrays, array: str) -> None:
        self._between = between
        self._array = array
        self._answers: dict[int, bytes] = {}

    def read(self, _offset: int, _length: int, _timeout_s: float) -> bytes:
        self._reached()
        return bytes(PAGE_BYTES)

    def write(self, _offset: int, _data: bytes, _timeout_s: float) -> None:
        raise AssertionError("nothing is written to what is no command device")

    def write_buffer(self, lane: int, data: bytes, _timeout_s: float) -> None:
        self._reached()
        message = replace(decode_message(data), origin="host")
        self._between.messages.append(message)
        self._between.asked.append(self._array)
        item = Item(message, Origin("host"), 0.0, 0, set(), self._between.carry(self._array, message))
        self._answers[lane] = answer_of(item).encode()

    def read_buffer(self, lane: int, _length: int, _timeout_s: float) -> bytes:
        self._reached()
        self._between.gone |= self._between.going
        return self._answers[lane]

    def _reached(self) -> None:
        if self._array in self._between.gone:
            raise Unreachable(f"{self._array}: nobody listens")
