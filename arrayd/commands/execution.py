"""Executes commands: who may, once each, with the answer kept (figure 7's command execution section 703, figure 9's
S902 to S904, and section 2705 of figure 27).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from arrayd.commands.formats import EDITED_BYTES_MAX, Answer, Request, State, error_text
from arrayd.commands.history import Entry, ForgottenError, FullError, History
from arrayd.commands.pace import Pace
from arrayd.commands.registry import CommandError, Output, Process, Registry
from arrayd.commands.results import Result
from arrayd.log import get_logger
from arrayd.origin import Origin
from arrayd.tables import CommandRow, CommandTable, TablesError

if TYPE_CHECKING:
    from arrayd.commands.context import Context
    from arrayd.tables import Work

EXECUTING_MAX = 256
"""Commands at work at once; one more is refused."""

log = get_logger("commands")


class Executor:
    """Executes the commands of `registry` on the array that `context` knows, once it is there. `refusal(origin)` says
    why one may not command this array, or None. `table` is where commands that change something are remembered;
    `clock()` is the time in seconds since 1970."""

    context: Context

    def __init__(
        self,
        name: str,
        registry: Registry,
        history: History,
        table: CommandTable,
        refusal: Callable[[Origin], str | None],
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self._registry = registry
        self._history = history
        self._table = table
        self._refusal = refusal
        self._clock = clock
        self._pace = Pace()
        self._at_work: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()
        """Commands that change something are executed one after the other."""
        self._changing_apart: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        """But for what is changed apart (`Process.apart`): by the field, and what it has there. They are there as long
        as somebody has them, or waits."""
        self.begun = 0
        """Commands that were begun since the array started."""

    @property
    def running(self) -> int:
        """Commands at work."""
        return self._history.running

    @property
    def remembered(self) -> int:
        """Commands that would not be executed again."""
        return len(self._history)

    def execute(self, origin: Origin, request: Request, device: str | None = None, slot: int | None = None) -> Entry:
        """Has a command executed, unless it was already: the entry ends with its answer, now or later.

        `device` and `slot` say where it was written, so that its answer is there again after a restart.
        """
        refusal = self._refusal(origin)
        if refusal is not None:
            log.warning("command refused", origin=origin.name, path=origin.path, reason=refusal)
            return self._refused(request, Result.NOT_AUTHORISED, refusal)
        digest = _digest(request)
        try:
            known = self._history.find(request.identification)
            if known is not None:
                if known.digest not in (digest, b""):
                    return self._refused(request, Result.CONFLICT, "its identification number is another command's")
                return known
            process = self._registry.by_number.get(request.process)
            if process is None:
                reason = f"there is no command {request.process}: `arrayctl commands` lists what there is"
                return self._refused(request, Result.UNKNOWN_COMMAND, reason)
            if self._history.running >= EXECUTING_MAX:
                raise FullError
            entry = self._history.begin(request.identification, digest, process.changes)
        except ForgottenError:
            reason = (
                "its identification number is older than what is remembered: it is not known whether it was executed"
            )
            return self._refused(request, Result.FORGOTTEN, reason)
        except FullError:
            return self._refused(request, Result.BUSY, "too many commands at once: try again")
        entry.device, entry.slot = device, slot
        self.begun += 1
        if process.changes:
            entry.taken = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(self._run(origin, process, request, entry))
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        return entry

    def _refused(self, request: Request, result: Result, reason: str) -> Entry:
        """An entry that nobody remembers."""
        return refused(request, result, reason, self.name)

    async def _run(self, origin: Origin, process: Process, request: Request, entry: Entry) -> None:
        await self._pace.turn()
        try:
            told = process.parse(request.input)
            if process.changes:
                answer = await self._change(origin, process, told, request, entry)
            else:
                answer = self._answer(request, await process.function(self.context, told))
        except Exception as error:
            answer = self._failed(process, request, error)
            await self._keep_failure(process, entry, answer)
        if entry.taken is not None and not entry.taken.done():
            entry.taken.set_result(None)
        self._history.end(entry, answer)

    async def _change(self, origin: Origin, process: Process, told: object, request: Request, entry: Entry) -> Answer:
        """Carries out a command that changes something: effect and answer become durable in one transaction."""
        saved: list[Answer] = []

        async def save(work: Work, output: Output) -> None:
            answer = self._answer(request, output)
            try:
                await self._table.put(self._row(process, entry, answer), work)
            except TablesError as error:
                raise CommandError(Result.FAILED, str(error)) from error
            saved.append(answer)

        await self._table.put(self._row(process, entry, None))
        assert entry.taken is not None
        entry.taken.set_result(None)
        try:
            async with self._turn(process, told):
                await process.function(self.context, told, save)
        except Exception:
            if not saved:
                raise
            log.exception("command executed, and failed after that", command=process.name)
        assert saved, f"{process.name} has saved nothing"
        log.info("command executed", command=process.name, origin=origin.name, path=origin.path)
        return saved[0]

    def _turn(self, process: Process, told: object) -> asyncio.Lock:
        """Whose commands this one waits for. Groups of pairs change apart: a split may take long."""
        if process.apart is None:
            return self._changing
        return self._changing_apart.setdefault((process.apart, getattr(told, process.apart)), asyncio.Lock())

    async def _keep_failure(self, process: Process, entry: Entry, answer: Answer) -> None:
        if process.changes:
            try:
                await self._table.put(self._row(process, entry, answer))
            except TablesError as error:
                log.error("the end of a command could not be kept", command=process.name, reason=str(error))

    def _row(self, process: Process, entry: Entry, answer: Answer | None) -> CommandRow:
        told = (None, None) if answer is None else (int(answer.result), answer.edited)
        return CommandRow(*entry.identification, process.number, self._clock(), entry.device, entry.slot, *told)

    def _answer(self, request: Request, output: Output) -> Answer:
        """Raises CommandError for one that is too long."""
        edited = output.model_dump_json(exclude_none=True).encode() if request.edited else b""
        if len(edited) > EDITED_BYTES_MAX:
            reason = f"edited data of {len(edited)} bytes: {EDITED_BYTES_MAX} at the most; ask for less at a time"
            raise CommandError(Result.TOO_LONG, reason)
        return Answer(State.DONE, request.identification, Result.OK, edited)

    def _failed(self, process: Process, request: Request, error: Exception) -> Answer:
        if isinstance(error, CommandError):
            result, reason = error.result, str(error)
        elif isinstance(error, TablesError):
            result, reason = Result.FAILED, str(error)
        else:
            log.error("command failed", command=process.name, exc_info=error)
            result, reason = Result.INTERNAL, "a fault of the array: its log says more"
        return failed(request, result, reason, self.name)

    async def stop(self) -> None:
        """Waits until no command is at work any more."""
        while self._at_work:
            await asyncio.wait(self._at_work)


def failed(request: Request, result: Result, reason: str, at: str) -> Answer:
    """The answer to a command that was not carried out at array `at`."""
    return Answer(State.DONE, request.identification, result, error_text(reason, at))


def refused(request: Request, result: Result, reason: str, at: str) -> Entry:
    """A command that was ended before it was begun, which nobody remembers."""
    return Entry(request.identification, answer=failed(request, result, reason, at), remembered=False)


def interrupted(entry: Entry, at: str) -> Answer:
    """The answer to a command that was taken and not executed when the array was stopped."""
    reason = "the array was stopped before it executed the command: nothing was changed"
    return Answer(State.DONE, entry.identification, Result.INTERRUPTED, error_text(reason, at))


def _digest(request: Request) -> bytes:
    head = f"{request.process},{request.edited};".encode()
    return hashlib.blake2b(head + request.input, digest_size=16).digest()
