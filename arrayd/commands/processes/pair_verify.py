"""Commands that compare a group's pairs with the other array's (pairverify), at the side that has the S-VOLs: one
begins a verify, which runs as long as the pairs stay as they are, one ends it, one lists what it has found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from arrayd.commands.processes.pairs import GROUP
from arrayd.commands.registry import REGISTRY, CommandError, Input, Output
from arrayd.commands.results import Result
from arrayd.replication.statuses import Refusal, Side
from arrayd.replication.verifying.formats import Leads
from arrayd.replication.verifying.told import Found, Verifying

if TYPE_CHECKING:
    from arrayd.commands.context import Context
    from arrayd.replication.stages import Stage
    from arrayd.replication.verifying.verifier import Verifier

RANGES_LISTED_MAX = 1024
"""In one answer."""
LEADS = {None: None, "P": Leads.P_VOLS, "S": Leads.S_VOLS}


class Damage(Output):
    """Of a journal: which, and what is not whole in it."""

    text: str


class VerifyShown(Output):
    """A verify: `state` is running, same, differs, mended, stopped or failed. Bytes `done` and `left`, the rate of the
    last while in bytes a second and how long what is left takes at that; `differing` bytes were found, `mended` of
    them are so. `damages`: what is not whole in the journals. `trouble`: why it does not go on now, or has ended."""

    id: int
    state: str
    begun: float
    pair: int | None
    done: int | None
    left: int | None
    rate: int | None
    seconds_left: float | None
    differing: int
    mended: int
    damages: list[Damage]
    trouble: str


def shown(told: Verifying | None) -> VerifyShown | None:
    """As pair-status has it."""
    if told is None:
        return None
    job, found = told.job, told.findings
    rate, seconds = job.rate, job.seconds_left
    return VerifyShown(
        id=told.id,
        state=told.outcome.value,
        begun=told.begun,
        pair=told.pair,
        done=job.done,
        left=job.left,
        rate=None if rate is None else round(rate),
        seconds_left=None if seconds is None else round(seconds, 1),
        differing=found.differing,
        mended=found.mended,
        damages=[Damage(text=each) for each in found.damages],
        trouble=told.trouble,
    )


class WantedVerify(Input):
    """`pair`: this one alone, by its number. `repair_from`: what differs is written to both sides as the P-VOLs (`P`)
    or the S-VOLs (`S`) have it, and compared again; without it nothing is written."""

    group: str = GROUP
    pair: int | None = Field(default=None, ge=0, le=0xFFFF)
    repair_from: Literal["P", "S"] | None = None


class VerifyAnswer(Output):
    """The verify that was begun, or ended."""

    group: str
    verify: VerifyShown


@REGISTRY.command(76, "pair-verify")
async def pair_verify(context: Context, told: WantedVerify) -> VerifyAnswer:
    """Begin to compare a group's pairs with the other array's, while hosts write: at the side that has the S-VOLs."""
    stage, verifier = _verifier(context, told.group)
    if told.pair is not None and told.pair not in stage.row.states:
        raise CommandError(Result.NOT_FOUND, f"group {told.group}: there is no pair {told.pair}")
    begun = verifier.begin(told.pair, LEADS[told.repair_from])
    if isinstance(begun, Refusal):
        raise CommandError(Result.CONFLICT, f"group {told.group}: {begun.text}")
    return _answer(told.group, begun)


class WhichVerify(Input):
    """Of a group."""

    group: str = GROUP


@REGISTRY.command(77, "pair-verify-stop")
async def pair_verify_stop(context: Context, told: WhichVerify) -> VerifyAnswer:
    """End the verify of a group that runs; what it has found stays to be told."""
    _, verifier = _verifier(context, told.group)
    await verifier.end("it was told to stop")
    return _answer(told.group, _last(verifier, told.group))


class WhichRanges(Input):
    """Of a group: what was found from this number on, so many ranges at the most."""

    group: str = GROUP
    first: int = Field(default=0, ge=0, lt=1 << 31)
    limit: int = Field(default=RANGES_LISTED_MAX, ge=1, le=RANGES_LISTED_MAX)


class VerifyFound(Output):
    """`ranges` that differed, in order: number of the pair, offset and length in bytes, and whether it was mended.
    `following`: the number to ask on with, none if these were the last; `more`: there were more than are remembered."""

    group: str
    verify: VerifyShown
    ranges: list[tuple[int, int, int, bool]]
    following: int | None = None
    more: bool = False


@REGISTRY.command(78, "pair-verify-found")
async def pair_verify_found(context: Context, told: WhichRanges) -> VerifyFound:
    """List what the verify of a group that runs, or was the last one, has found."""
    _, verifier = _verifier(context, told.group)
    last = _last(verifier, told.group)
    found: list[Found] = last.findings.found
    end = told.first + told.limit
    verify = shown(last)
    assert verify is not None
    return VerifyFound(
        group=told.group,
        verify=verify,
        ranges=[(each.number, each.offset, each.length, each.mended) for each in found[told.first : end]],
        following=end if end < len(found) else None,
        more=last.findings.more,
    )


def _verifier(context: Context, group: str) -> tuple[Stage, Verifier]:
    at_work = context.replication.at_work(group)
    stage = None if at_work is None else at_work.stages.stage
    if stage is None:
        raise CommandError(Result.NOT_FOUND, f"group {group}: there is none")
    if stage.verifier is None:
        states = ", ".join(sorted({str(state) for state in stage.row.states.values()}))
        first = "pairresync first" if stage.row.side is Side.S_VOL else "it is asked of the other array"
        raise CommandError(Result.CONFLICT, f"group {group}: {states}: S-VOLs in PAIR are compared: {first}")
    return stage, stage.verifier


def _last(verifier: Verifier, group: str) -> Verifying:
    last = verifier.told()
    if last is None:
        raise CommandError(Result.NOT_FOUND, f"group {group}: no verify since the array started or the pairs changed")
    return last


def _answer(group: str, told: Verifying) -> VerifyAnswer:
    verify = shown(told)
    assert verify is not None
    return VerifyAnswer(group=group, verify=verify)
