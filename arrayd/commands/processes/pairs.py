"""Commands of pairs: this side's part of paircreate, pairsplit, pairresync, swap and takeover (figures 10, 19-21)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from arrayd.commands.pairing import WantedGroup, WantedPair, group_row
from arrayd.commands.processes.estate import refusals
from arrayd.commands.registry import REGISTRY, CommandError, Input, Output, Save
from arrayd.commands.results import Result
from arrayd.config.values import copy_rate
from arrayd.replication.changes import Save as RowSave
from arrayd.replication.group_rows import PAIRS_MAX, Driver, Fence, GroupRow, Mode, PeerRows
from arrayd.replication.in_force import STAGE_ERRORS
from arrayd.replication.journal.format import GROUP_BYTES
from arrayd.replication.pairs import PairsError
from arrayd.replication.statuses import Operation, Refusal, Side, State
from arrayd.tables import Work
from arrayd.tables.estate import nothing

if TYPE_CHECKING:
    from arrayd.commands.context import Context

GROUP = Field(min_length=1, max_length=64)
LUN = Field(ge=0, le=16383)
JOURNAL_LUN = Field(default=None, ge=0, le=16383)
NUMBER = Field(ge=0, le=0xFFFF)
COUNT = Field(ge=0, lt=1 << 63)
COPY_RATE = Field(default=None, description="bytes a second, or a size such as 50MiB; 0: no limit")
NO_LIMIT = (0, "0")
ALONE = frozenset({Operation.SVOL_SSUS, Operation.PVOL_PSUE})
"""What one side does without telling the other, whether that answers or not."""
STATES = {str(state): state for state in State}


class Rows(Input):
    """What the host saw that the other array shows of the group, before: by its pair-status."""

    generation: int = COUNT
    consistent: bool = False
    states: dict[str, str] = Field(default_factory=dict, max_length=PAIRS_MAX)

    def peer(self) -> PeerRows:
        """As the pair management table takes it. Raises CommandError."""
        try:
            states = {int(number): STATES[state] for number, state in self.states.items()}
        except (ValueError, KeyError) as error:
            reason = f"rows.states: {error}: expected numbers of pairs, and what they show"
            raise CommandError(Result.BAD_INPUT, reason) from error
        return PeerRows(states, self.generation, self.consistent)


class Group(Input):
    """A group of this array, and what the host saw of it: the generation of its rows, and the other array's, or null if
    that does not answer."""

    group: str = GROUP
    generation: int = COUNT
    rows: Rows | None = None

    def peer(self) -> PeerRows | None:
        """What the other side shows. Raises CommandError."""
        return None if self.rows is None else self.rows.peer()


class After(Output):
    """What this side shows from now on, by the pair's number; `sequence`, of a takeover: so many of the group's writes
    the S-VOLs have, if it is asynchronous."""

    group: str
    generation: int
    states: dict[str, str]
    sequence: int | None = None


def after(name: str, row: GroupRow | None, *, sequence: bool = False) -> After:
    """The answer to a command after which a group has this row; None: none any more."""
    if row is None:
        return After(group=name, generation=0, states={})
    states = {str(number): str(state) for number, state in row.states.items()}
    counted = sequence and row.side is Side.S_VOL and row.mode is Mode.ASYNC
    told = row.restored.sequence if counted else None
    return After(group=name, generation=row.generation, states=states, sequence=told)


class Answering:
    """The `save` that a group takes, which commits the answer with its row; `answer` is it."""

    def __init__(self, name: str, save: Save, *, sequence: bool = False) -> None:
        self._name = name
        self._save = save
        self._sequence = sequence
        self.answer = after(name, None)

    async def __call__(self, work: Work, row: GroupRow | None) -> None:
        """See `changes.Save`."""
        self.answer = after(self._name, row, sequence=self._sequence)
        await self._save(work, self.answer)


@contextmanager
def pair_refusals() -> Iterator[None]:
    """What the pairs and their stages refuse, as a command says it."""
    try:
        yield
    except PairsError as error:
        raise CommandError(Result.CONFLICT, str(error)) from error
    except STAGE_ERRORS as error:
        reason = f"nothing was changed: {str(error) or type(error).__name__}"
        raise CommandError(Result.FAILED, reason) from error


def copy_rate_of(told: int | str | None) -> int | None:
    """Bytes a second; 0: no limit. Raises CommandError."""
    if told is None or told in NO_LIMIT:
        return None if told is None else 0
    try:
        return copy_rate(told)
    except ValueError as error:
        raise CommandError(Result.BAD_INPUT, f"copy_rate: expected {error}") from error


class NewPair(Input):
    """A pair: its number and name, the volume at `lun` here and the one at `peer_lun` there: its identity, size and
    block size, in bytes."""

    number: int = NUMBER
    name: str = Field(min_length=1, max_length=64)
    lun: int = LUN
    peer_lun: int = LUN
    peer_volume: str = Field(min_length=1, max_length=128)
    peer_size: int = Field(gt=0)
    peer_block_size: Literal[512, 4096] = 512


class NewGroup(Input):
    """A group with its pairs, or pairs that are to be added to it. `id` is 32 hexadecimal digits, the same on both
    sides; `epoch` is greater than the last one of both arrays. Not to `copy`: the volumes are the same already.
    Journals are LUNs, of an asynchronous group alone; a `fence` level (`never` without it) has a synchronous one."""

    group: str = GROUP
    id: str = Field(pattern="^[0-9a-f]{32}$")
    side: Literal["P", "S"]
    peer: str = GROUP
    peer_serial: str = GROUP
    journal: int | None = JOURNAL_LUN
    peer_journal: int | None = JOURNAL_LUN
    epoch: int = Field(ge=1, lt=1 << 63)
    mode: Literal["async", "sync"] = "async"
    fence: Literal["never", "data", "status"] | None = None
    pace: int = Field(default=3, ge=1, le=15)
    driver: Literal["arrays", "host"] = "arrays"
    copy_rate: int | str | None = COPY_RATE
    copy_: bool = Field(default=True, alias="copy")
    pairs: list[NewPair] = Field(min_length=1, max_length=PAIRS_MAX)

    def wanted(self) -> WantedGroup:
        """As the estate is asked about it. Raises CommandError."""
        mode, journals = Mode(self.mode), {self.journal, self.peer_journal}
        if mode is Mode.SYNC and journals != {None}:
            raise self._wrong("a synchronous group has no journal: without journal and peer_journal")
        if mode is Mode.ASYNC and None in journals:
            raise self._wrong("an asynchronous group has journals: journal and peer_journal, both LUNs")
        if mode is Mode.ASYNC and self.fence is not None:
            raise self._wrong("an asynchronous group has no fence level: without fence, or mode sync")
        if mode is Mode.SYNC and Driver(self.driver) is Driver.HOST:
            raise self._wrong("a synchronous group is driven by the arrays: without driver")
        group = bytes.fromhex(self.id)
        assert len(group) == GROUP_BYTES, group
        return WantedGroup(
            group,
            self.group,
            self.peer,
            self.peer_serial,
            self.journal,
            self.peer_journal,
            self.epoch,
            mode,
            Fence(self.fence or Fence.NEVER),
            self.pace,
            Driver(self.driver),
            copy_rate_of(self.copy_rate) or None,
            [WantedPair(**pair.model_dump()) for pair in self.pairs],
        )

    def _wrong(self, reason: str) -> CommandError:
        return CommandError(Result.BAD_INPUT, f"group {self.group}: {reason}")


@REGISTRY.command(61, "pair-create", changes=True, apart="group")
async def pair_create(context: Context, told: NewGroup, save: Save) -> After:
    """Make pairs of this array's volumes with those of another: its side of paircreate."""
    answering = Answering(told.group, save)
    # Not in the ledger's turn, in which the estate and other groups would wait, too.
    await context.replication.settled(told.group)
    with refusals(), pair_refusals():
        await context.estate.ledger.in_turn(partial(_create, context, told, answering))
    return answering.answer


async def _create(context: Context, told: NewGroup, save: RowSave) -> None:
    try:
        row = group_row(context, told.wanted())
    except ValueError as error:
        raise CommandError(Result.BAD_INPUT, f"group {told.group}: {error}") from error
    side = Side.P_VOL if told.side == "P" else Side.S_VOL
    if row.side is side:
        await save(nothing, row)  # all of it is there already
    elif row.side is Side.NONE:
        operation = Operation.PAIRCREATE_VL if side is Side.P_VOL else Operation.PAIRCREATE_VR
        await context.replication.create(row, operation, save, copy=told.copy_)
    else:
        raise CommandError(Result.CONFLICT, f"group {told.group}: its volumes here are the other side's")


async def _happen(
    context: Context,
    told: Group,
    operation: Operation,
    save: Save,
    peer: PeerRows | None,
    epoch: int | None = None,
    pair: int | None = None,
) -> After:
    answering = Answering(told.group, save, sequence=operation is Operation.SVOL_SSUS)
    with pair_refusals():
        outcome = await context.replication.happen(
            told.group,
            operation,
            peer,
            answering,
            generation=told.generation,
            epoch=epoch,
            pair=pair,
            together=told.rows is not None and operation not in ALONE,
        )
    if isinstance(outcome, Refusal):
        raise CommandError(Result.CONFLICT, f"group {told.group}: {outcome.text}")
    return answering.answer


class Split(Group):
    """`writable`: hosts may write to the S-VOLs."""

    writable: bool = False


@REGISTRY.command(62, "pair-split", changes=True, apart="group")
async def pair_split(context: Context, told: Split, save: Save) -> After:
    """Suspend a group: this side's part of pairsplit, and of pairsplit -rw."""
    operation = Operation.PAIRSPLIT_RW if told.writable else Operation.PAIRSPLIT
    return await _happen(context, told, operation, save, told.peer())


class Delete(Group):
    """`pair`: this one alone, by its number."""

    pair: int | None = Field(default=None, ge=0, le=0xFFFF)


@REGISTRY.command(63, "pair-delete", changes=True, apart="group")
async def pair_delete(context: Context, told: Delete, save: Save) -> After:
    """End a group, or one of its pairs, on this side: its part of pairsplit -S."""
    told.peer()
    # Nothing refuses it, whatever the other side shows: so it is never a matter of having met.
    peer = None
    return await _happen(context, told, Operation.PAIRSPLIT_S, save, peer, pair=told.pair)


class Resync(Group):
    """`swap`: the other way round, asked for at the S-VOLs' side (swaps) or the P-VOLs' (swapp). `epoch` is greater
    than the last one of both arrays."""

    swap: Literal["swaps", "swapp"] | None = None
    epoch: int = Field(ge=1, lt=1 << 63)


RESYNCS = {
    None: Operation.PAIRRESYNC,
    "swaps": Operation.PAIRRESYNC_SWAPS,
    "swapp": Operation.PAIRRESYNC_SWAPP,
}


@REGISTRY.command(64, "pair-resync", changes=True, apart="group")
async def pair_resync(context: Context, told: Resync, save: Save) -> After:
    """Resume a group, copying what differs: this side's part of pairresync."""
    return await _happen(context, told, RESYNCS[told.swap], save, told.peer(), told.epoch)


class Swap(Group):
    """`epoch` is greater than the last one of both arrays."""

    epoch: int = Field(ge=1, lt=1 << 63)


@REGISTRY.command(65, "pair-swap", changes=True, apart="group")
async def pair_swap(context: Context, told: Swap, save: Save) -> After:
    """Change places with the other side (figures 19 to 21): told to the S-VOLs' side first."""
    return await _happen(context, told, Operation.SWAP, save, told.peer(), told.epoch)


@REGISTRY.command(66, "pair-takeover", changes=True, apart="group")
async def pair_takeover(context: Context, told: Group, save: Save) -> After:
    """Let hosts write here without the other side: the S-VOLs, or P-VOLs that an error has fenced."""
    told.peer()
    row = context.replication.table.group(told.group)
    operation = Operation.PVOL_PSUE if row is not None and row.side is Side.P_VOL else Operation.SVOL_SSUS
    # This side does it alone, whether the other one answers or not.
    return await _happen(context, told, operation, save, None)


class Settings(Input):
    """What is to be another; what is not given stays. A `copy_rate` of 0: no limit."""

    group: str = GROUP
    pace: int | None = Field(default=None, ge=1, le=15)
    driver: Literal["arrays", "host"] | None = None
    copy_rate: int | str | None = COPY_RATE


class Kept(Output):
    """How the group is set from now on."""

    group: str
    pace: int
    driver: Driver
    copy_rate: int | None


@REGISTRY.command(67, "pair-set", changes=True, apart="group")
async def pair_set(context: Context, told: Settings, save: Save) -> Kept:
    """Set the pace of a group's copies, a limit of their speed, or who drives it."""
    row = context.replication.table.group(told.group)
    if row is None:
        raise CommandError(Result.NOT_FOUND, f"group {told.group}: there is none")
    driver = None if told.driver is None else Driver(told.driver)
    rate = copy_rate_of(told.copy_rate)
    kept = Kept(
        group=row.name,
        pace=told.pace or row.pace,
        driver=driver or row.driver,
        copy_rate=row.copy_rate if rate is None else rate or None,
    )

    async def save_kept(work: Work, _row: GroupRow | None) -> None:
        await save(work, kept)

    with pair_refusals():
        await context.replication.keep(told.group, save_kept, pace=told.pace, driver=driver, copy_rate=rate)
    return kept
