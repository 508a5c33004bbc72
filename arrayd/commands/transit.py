"""The command cache: messages that are executed here or go on to another array, until their answers have been fetched
(figures 31 to 34, 37 and 41).

An array that sends a message on keeps it until the next one has its answer. If that one was started again, or the link
was cut, the message is sent once more: identification numbers see to it that nothing is executed twice. Whatever comes
of it, a message ends by its time limit, and the answer says at which array and why.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from arrayd.commands import asking
from arrayd.commands.asking import Outcome
from arrayd.commands.execution import Executor
from arrayd.commands.formats import (
    EDITED_BYTES_MAX,
    Answer,
    FormatError,
    Identification,
    Request,
    State,
    error_text,
)
from arrayd.commands.messages import Ended, Message, decode_ended, decode_message
from arrayd.commands.pace import Pace
from arrayd.commands.results import Result
from arrayd.commands.routing import Here, Nowhere, Place, There, next_step
from arrayd.link.channel import Call, LinkError
from arrayd.log import get_logger
from arrayd.origin import Origin, over_link

MESSAGES_MAX = 1024
"""Messages in the command cache; an ended one goes for one more, else that is refused."""
BYTES_MAX = 16 * 1024 * 1024
"""What these come to, with their answers."""
ITEM_BYTES = 1024
"""What a message takes beside its own bytes and its answer."""
KEPT_SECONDS = 60.0
"""How long an ended message is kept, for an answer that was lost."""
LISTED_BYTES_MAX = EDITED_BYTES_MAX * 3 // 4
"""Edited data of several commands together."""
OBTAIN_SECONDS = 2.0
"""So long is held what another array asks."""
HOP_SECONDS = 0.1
"""An array gives the next one so much less time than it has: so the one that is stuck says so."""
PAUSE_SECONDS = 0.05
PAUSE_SECONDS_MAX = 1.0
"""Before a message is sent once more: twice as long each time."""

log = get_logger("commands")


@dataclass(eq=False, slots=True)
class Item:
    """One message in the cache. `ended` is there once all its commands have ended."""

    message: Message
    origin: Origin
    deadline: float
    size: int
    askers: set[tuple[str, ...]]
    """Arrays that have handed it in, each by its name; `()` is a host."""
    ended: list[Ended] | None = None
    ended_at: float = 0.0
    where: str = ""
    """What is waited for."""
    over: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Trip:
    """A message on its way to the next array: whether it is there, or may be, and what went wrong last."""

    is_there: bool = False
    may_be_there: bool = False
    why: str = "no answer in time"


class Transit:
    """The messages of one array. `place()` is where it is now; `send` puts requests on the link; `now()` is the time in
    seconds."""

    def __init__(
        self,
        place: Callable[[], Place],
        executor: Executor,
        refusal: Callable[[Origin], str | None],
        send: asking.Send,
        now: Callable[[], float],
    ) -> None:
        self._place = place
        self._executor = executor
        self._refusal = refusal
        self._send = send
        self._now = now
        self._pace = Pace()
        self._items: dict[Identification, Item] = {}
        self._ended: OrderedDict[Identification, Item] = OrderedDict()
        self._bytes = 0
        self._at_work: set[asyncio.Task[None]] = set()
        self._stopped = False
        self.refused = 0
        """Messages for which there was no room."""

    # -- the cache ---------------------------------------------------------------------------------------------------

    @property
    def counts(self) -> tuple[int, int, int]:
        """Messages that have not ended, that have, and bytes of both."""
        return len(self._items) - len(self._ended), len(self._ended), self._bytes

    def waiting(self) -> list[tuple[Identification, float, str]]:
        """Messages that have not ended: seconds that are left of their time, and what they wait for."""
        now = self._now()
        return [(key, item.deadline - now, item.where) for key, item in self._items.items() if item.ended is None]

    def find(self, identification: Identification) -> Item | None:
        """The message of this number, if it is in the cache."""
        return self._items.get(identification)

    def take(self, origin: Origin, message: Message) -> Item:
        """Takes a message, unless it is there: it ends, whatever is wrong with it (S3101 and S3102)."""
        refusal = self._refusal(origin)
        if refusal is not None:
            log.warning("command refused", origin=origin.name, path=origin.path, reason=refusal)
            return self._refused(origin, message, Result.NOT_AUTHORISED, refusal)
        known = self._items.get(message.identification)
        if known is not None:
            if (known.message.parts, known.origin.name) == (message.parts, origin.name):
                known.askers.add(origin.path[-1:])
                return known
            return self._refused(origin, message, Result.CONFLICT, "its identification number is another message's")
        if self._stopped:
            return self._refused(origin, message, Result.INTERRUPTED, "the array stops")
        size = ITEM_BYTES + len(message.encode())
        if not self._has_room(size):
            self.refused += 1
            return self._refused(origin, message, Result.BUSY, "the command cache is full: try again")
        item = Item(message, origin, self._now() + message.time_left_ms / 1000, size, {origin.path[-1:]})
        self._items[message.identification] = item
        self._bytes += size
        task = asyncio.ensure_future(self._carry(item))
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        return item

    def _refused(self, origin: Origin, message: Message, result: Result, reason: str) -> Item:
        """An item that is not in the cache."""
        item = Item(message, origin, 0.0, 0, set())
        item.ended = self._failed(message, result, reason)
        item.over.set()
        return item

    def _has_room(self, size: int) -> bool:
        self.prune()
        while self._ended and (len(self._items) >= MESSAGES_MAX or self._bytes + size > BYTES_MAX):
            self._delete(next(iter(self._ended.values())))
        return len(self._items) < MESSAGES_MAX and self._bytes + size <= BYTES_MAX

    def prune(self) -> None:
        """Deletes what was kept for long enough."""
        limit = self._now() - KEPT_SECONDS
        while self._ended and (oldest := next(iter(self._ended.values()))).ended_at <= limit:
            self._delete(oldest)

    def _delete(self, item: Item) -> None:
        """S3109: deletes the message from the cache."""
        del self._items[item.message.identification], self._ended[item.message.identification]
        self._bytes -= item.size

    # -- on its way --------------------------------------------------------------------------------------------------

    async def _carry(self, item: Item) -> None:
        try:
            ended = await self._commands(item)
        except asyncio.CancelledError:
            reason = "the array stops; whether it was executed is not known"
            ended = self._failed(item.message, Result.EXPIRED, reason, all_of_it=True)
        except Exception:
            log.exception("message failed", identification=str(item.message.identification))
            ended = self._failed(item.message, Result.INTERNAL, "a fault of the array: its log says more")
        item.ended, item.ended_at = _fitting(ended), self._now()
        size = sum(len(each.edited) for each in item.ended)
        item.size += size
        self._bytes += size
        self._ended[item.message.identification] = item
        item.over.set()
        while self._bytes > BYTES_MAX and len(self._ended) > 1:
            self._delete(next(iter(self._ended.values())))

    async def _commands(self, item: Item) -> list[Ended]:
        """Executes what is for this array, and sends on what is left."""
        ended: list[Ended] = []
        left: Message | None = item.message
        while left is not None:
            step = next_step(left, self._place())
            if isinstance(step, Nowhere):
                return ended + self._failed(left, step.result, step.reason)
            if isinstance(step, There):
                return ended + await self._elsewhere(item, step)
            answer = await self._here(item, step)
            ended.append(self._ended_here(step.request, answer))
            left = step.rest
            if left is not None and answer.result and not left.goes_on:
                return ended + self._failed(left, Result.NOT_EXECUTED, "a command before it failed", all_of_it=True)
        return ended

    async def _here(self, item: Item, step: Here) -> Answer:
        """S3110 to S3113."""
        entry = self._executor.execute(item.origin, step.request)
        if entry.answer is None:
            item.where = f"command {step.request.process} is executed"
            over = asyncio.Event()
            entry.when_ended(lambda _answer: over.set())
            try:
                async with asyncio.timeout(max(item.deadline - self._now(), 0)):
                    await over.wait()
            except TimeoutError:
                reason = "the time limit passed before the command had ended; it goes on"
                return Answer(
                    State.DONE, step.request.identification, Result.EXPIRED, error_text(reason, self._executor.name)
                )
        assert entry.answer is not None
        return entry.answer

    def _ended_here(self, request: Request, answer: Answer) -> Ended:
        return Ended(self._executor.name, request.process, request.identification, answer.result, answer.edited)

    async def _elsewhere(self, item: Item, step: There) -> list[Ended]:
        """S3104 to S3106 and figure 32: sends a message on, and obtains what became of it, again and again if need
        be."""
        await self._pace.turn()
        pause, trip = PAUSE_SECONDS, Trip()
        item.where = f"sent to {step.array}"
        while True:
            left = item.deadline - self._now()
            if left <= 0:
                reason = f"the time limit passed while {step.array} was asked: {trip.why}"
                return self._failed(step.message, Result.EXPIRED, reason)
            try:
                async with asyncio.timeout(left):
                    ended = await self._ask(step, left, trip)
                if ended is not None:
                    return ended
                pause = PAUSE_SECONDS
                continue
            except FormatError as error:
                return self._failed(step.message, Result.UNDELIVERABLE, f"{step.array} will not have it: {error}")
            except LinkError as error:
                trip.why = str(error)
                trip.may_be_there = trip.may_be_there or error.maybe_done
                if not trip.may_be_there:
                    return self._failed(
                        step.message, Result.UNDELIVERABLE, f"{step.array} cannot be reached: {trip.why}"
                    )
            except TimeoutError:
                continue
            await asyncio.sleep(min(pause, max(item.deadline - self._now(), 0)))
            pause = min(pause * 2, PAUSE_SECONDS_MAX)

    async def _ask(self, step: There, left: float, trip: Trip) -> list[Ended] | None:
        """Sends the message, unless it is there, and asks for its answer; None: not ended yet, or to be sent again."""
        if not trip.is_there:
            time_left = max(left - HOP_SECONDS, left / 2)
            message = replace(step.message, time_left_ms=max(int(time_left * 1000), 1))
            answer = await asking.ask(self._send, step.array, asking.submit(message.encode()))
            outcome = asking.outcome_of(answer)
            if outcome == Outcome.ENDED:
                return _checked(answer[1:], step.message)
            if outcome != Outcome.TAKEN:
                raise FormatError(answer[1:].decode(errors="replace"))
            trip.is_there = trip.may_be_there = True
        answer = await asking.ask(self._send, step.array, asking.obtain(step.message.identification))
        outcome = asking.outcome_of(answer)
        if outcome == Outcome.UNKNOWN:
            trip.is_there, trip.why = False, f"{step.array} was started again"
            await asyncio.sleep(PAUSE_SECONDS)
        return _checked(answer[1:], step.message) if outcome == Outcome.ENDED else None

    def _failed(self, message: Message, result: Result, reason: str, all_of_it: bool = False) -> list[Ended]:
        """The commands of a message none of which was executed: the first one because of `result`, the others because
        of the first, unless `all_of_it` has the same reason."""
        name = self._executor.name
        ended = []
        for number, request in enumerate(message.requests):
            why, text = (
                (result, reason) if all_of_it or not number else (Result.NOT_EXECUTED, "a command before it failed")
            )
            ended.append(Ended(name, request.process, request.identification, why, error_text(text, name)))
        return ended

    # -- what others ask ---------------------------------------------------------------------------------------------

    def serve(self, array: str, call: Call, payload: memoryview) -> None:
        """See `link.channel.Service`: SUBMIT and OBTAIN of another array."""
        data = bytes(payload)
        try:
            operation = data[0] if data else 0
            if operation == asking.Operation.SUBMIT:
                message = decode_message(data[1:])
                if not message.trail or message.trail[-1] != array:
                    raise FormatError(f"a message of {array} that did not pass it")
                item = self.take(over_link(message.origin, message.trail, message.local), message)
                if item.ended is None:
                    asking.answer(call, Outcome.TAKEN)
                else:
                    asking.answer(call, Outcome.ENDED, _encode(item.ended))
            elif operation == asking.Operation.OBTAIN:
                self._obtain(array, call, asking.decode_identification(data[1:]))
            elif operation == asking.Operation.TEST:
                asking.answer(call, Outcome.ENDED, asking.answer_test(data))
            else:
                raise FormatError(f"operation {operation}")
        except FormatError as error:
            log.error("request refused", array=array, reason=str(error))
            asking.answer(call, Outcome.MALFORMED, str(error).encode())

    def _obtain(self, array: str, call: Call, identification: Identification) -> None:
        """Figures 32 and 34, at the array that is asked: by one that has handed the message in."""
        item = self._items.get(identification)
        if item is None or (array,) not in item.askers or self._stopped:
            asking.answer(call, Outcome.UNKNOWN)
            return
        task = asyncio.ensure_future(self._answer_obtain(call, item))
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)

    async def _answer_obtain(self, call: Call, item: Item) -> None:
        await wait(item, OBTAIN_SECONDS)
        if item.ended is None:
            asking.answer(call, Outcome.RUNNING)
        else:
            asking.answer(call, Outcome.ENDED, _encode(item.ended))

    async def stop(self) -> None:
        """Ends what is on its way, and takes no more: no array waits for this one any longer than for its link."""
        self._stopped = True
        for task in self._at_work:
            task.cancel()
        while self._at_work:
            await asyncio.wait(self._at_work)


async def wait(item: Item, seconds: float) -> None:
    """Waits until a message has ended, but not for long."""
    try:
        async with asyncio.timeout(seconds):
            await item.over.wait()
    except TimeoutError:
        pass


def _checked(data: bytes, message: Message) -> list[Ended]:
    """What another array says became of `message`: of each of its commands, and of no other. Raises FormatError."""
    ended = decode_ended(data)
    if [each.identification for each in ended] != [request.identification for request in message.requests]:
        raise FormatError("it answers other commands than were sent")
    return ended


def _encode(ended: list[Ended]) -> bytes:
    """What follows ENDED."""
    return b"".join(each.encode() for each in ended)


def _fitting(ended: list[Ended]) -> list[Ended]:
    """As much edited data as one answer holds; the others say that it was too much."""
    if len(ended) == 1:
        return ended
    room, told = LISTED_BYTES_MAX, []
    for each in ended:
        if len(each.edited) > room:
            why = error_text("the answers together are too long", each.array)
            each = replace(each, result=Result.TOO_LONG, edited=why)
        room -= len(each.edited)
        told.append(each)
    return told
