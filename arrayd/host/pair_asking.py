"""Asking both arrays of a group, and telling them what to do: in one message of figure 38 where one path passes both in
the order that is needed, else each by a message of its own, one after the other.

An array that the common way does not reach is asked by its own, if the path table has one: with the link between two
arrays down, or one of them gone, what the other says still counts. Nothing is raised for an array that does not answer:
it is a Silence when it was asked, and a part that was not carried out, or of which that is not known, when it was told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from arrayd.commands.results import Result
from arrayd.host import pair_commands
from arrayd.host.answer_fields import NotAStatus
from arrayd.host.answers import Command, Ended
from arrayd.host.failure import CommandFailed
from arrayd.host.groups import Group
from arrayd.host.host import Host
from arrayd.host.pair_status import Heard, PairStatus, Silence, parse
from arrayd.host.pair_wait import Sides

ASK_SECONDS_MAX = 10.0
"""For one question, however long a command may take: a side that hangs is as good as silent."""
ASK_SECONDS_MIN = 1.0
"""For the last question before a wait is over: enough for an answer."""

NOT_DONE = frozenset(Result) - {
    Result.OK,
    Result.EXPIRED,
    Result.UNREACHABLE,
    Result.TOO_LONG,
    Result.FORGOTTEN,
    Result.UNKNOWN_IDENTIFICATION,
    Result.INTERNAL,
}
"""Results that say that nothing was done. Of the others it is not known before the array shows what it has: it may have
carried out what it was told, and only the answer was lost or too long."""

GONE = frozenset({Result.UNREACHABLE, Result.UNDELIVERABLE, Result.NO_ROUTE, Result.EXPIRED, Result.INTERRUPTED})
"""Answers to a question that say that an array, or the way to it, is gone."""


def check_gone(sides: Sides, otherwise: str = "") -> None:
    """That a side which says nothing of the group is gone: one that is there, and does not tell, may do what the host
    does not see. Raises CommandFailed, with what to do `otherwise`."""
    for each in (sides.local, sides.remote):
        if isinstance(each, Silence) and each.result not in GONE:
            raise CommandFailed(each.result, f"{each.reason}; {otherwise}" if otherwise else each.reason)


class Arrays:
    """The two arrays of `group`, seen from `here`, which is asked by `host`."""

    def __init__(self, host: Host, group: Group, here: str) -> None:
        self.group = group
        self.here = here
        self.local = group.local(here)
        self.remote = next(array for array in group.arrays if array != self.local)
        self._host = host
        self._apart = False
        """Whether one of them was heard by its own way alone."""

    @property
    def names(self) -> tuple[str, str]:
        """Both, this side first."""
        return self.local, self.remote

    def other(self, array: str) -> str:
        """The one at the other end."""
        return self.remote if array == self.local else self.local

    # -- asking --------------------------------------------------------------------------------------------------------

    def ask(self, *arrays: str, timeout_s: float = ASK_SECONDS_MAX) -> Sides:
        """What the arrays say of the group: both, unless some are named. Raises CommandFailed where the path table has
        no way to one of them."""
        limit_s = min(max(timeout_s, ASK_SECONDS_MIN), self._host.way.timeout_s, ASK_SECONDS_MAX)
        host = self._host.by(timeout_s=limit_s)
        questions = [self._question(array) for array in self._in_order(arrays or self.names)]
        answers = self._send(host, questions, go_on=True)
        heard: dict[str, Heard] = {}
        self._apart = False
        for question, answer in zip(questions, answers, strict=True):
            if answer.result != Result.OK:
                answer = self._again(host, question, answer)
                self._apart = self._apart or answer.result == Result.OK
            heard[question.array] = _heard(question.array, answer)
        return Sides(self.group, self.here, self._with_contacts(heard))

    def _question(self, array: str) -> Command:
        luns = [volume.luns[array] for volume in self.group.volumes]
        return pair_commands.status(array, self.group.name, luns)

    def _again(self, host: Host, question: Command, answer: Ended) -> Ended:
        """The same by itself, where that may help: by the array's own way, or because two answers were too long."""
        other_way = self._own_way(host, question.array)
        if other_way is not None:
            return _send_one(other_way, question)
        return _send_one(host, question) if answer.result == Result.TOO_LONG else answer

    def _own_way(self, host: Host, array: str) -> Host | None:
        """To an array that the host is connected to itself, but did not ask first."""
        row = self._host.table.rows.get(array)
        if row is None or row.direct is None or host.route(array).asked == array:
            return None
        return host.by(at=array)

    @staticmethod
    def _with_contacts(heard: dict[str, Heard]) -> dict[str, Heard]:
        """Of a side that is silent, the other may know when it last heard of it."""
        contacts = [each.contact for each in heard.values() if isinstance(each, PairStatus)]
        contact = contacts[0] if len(contacts) == 1 else None
        return {
            array: replace(each, last_contact=contact) if isinstance(each, Silence) else each
            for array, each in heard.items()
        }

    # -- telling -------------------------------------------------------------------------------------------------------

    def tell(self, commands: Sequence[Command], *, any_order: bool = False) -> list[Ended]:
        """Has the arrays carry out their parts, one after the other, as long as none fails: what became of each, in
        the order in which they were told."""
        told = list(commands)
        if any_order and not self._one_path([each.array for each in told]):
            told.reverse()
        return self._send(self._host, told, go_on=False, apart=self._apart)

    # -- sending -------------------------------------------------------------------------------------------------------

    def _send(self, host: Host, commands: list[Command], *, go_on: bool, apart: bool = False) -> list[Ended]:
        apart = apart or host.way.method == "command-device"  # where there is one command a message
        together = not apart and self._one_path([each.array for each in commands])
        if len(commands) > 1 and together:
            try:
                return [
                    Ended(command.array, command.command, ended.result, ended.edited, ended.reason)
                    for command, ended in zip(commands, host.send_many(commands, go_on=go_on), strict=True)
                ]
            except CommandFailed as failure:
                return [_failed(command, failure) for command in commands]
        ended: list[Ended] = []
        for command in commands:
            if not go_on and ended and ended[-1].result != Result.OK:
                reason = f"{command.array}: a command before it failed"
                ended.append(Ended(command.array, command.command, Result.NOT_EXECUTED, reason=reason))
            else:
                ended.append(_send_one(self._reaching(host, command.array), command))
        return ended

    def _reaching(self, host: Host, array: str) -> Host:
        """By the array's own way where it has one: the common one may be what is broken."""
        return self._own_way(host, array) or host

    def _in_order(self, arrays: Iterable[str]) -> list[str]:
        """The order in which one path passes them, if there is one."""
        listed = list(arrays)
        return listed if self._one_path(listed) else listed[::-1]

    def _one_path(self, arrays: Sequence[str]) -> bool:
        """Whether a message can pass these arrays in this order: it does not come back to an array that it passed.
        Raises CommandFailed where there is no way to one at all."""
        route = self._host.route(arrays[0])
        passed = [route.asked, *route.addresses]
        for array in arrays[1:]:
            self._host.route(array)
            if array == passed[-1]:
                continue
            onward = self._host.table.onward(passed[-1], array)
            if onward is None or set(onward) & set(passed):
                return False
            passed += onward
        return True


def _heard(array: str, answer: Ended) -> Heard:
    if answer.result != Result.OK:
        reason = answer.reason if array in answer.reason else f"{array}: {answer.reason}"
        return Silence(reason, None, answer.result)
    try:
        return parse(answer.edited)
    except NotAStatus as error:
        return Silence(f"{array}: {error}", None, Result.INTERNAL)


def _send_one(host: Host, command: Command) -> Ended:
    try:
        edited = host.send(command.array, command.command, **command.input)
    except CommandFailed as failure:
        return _failed(command, failure)
    return Ended(command.array, command.command, Result.OK, edited)


def _failed(command: Command, failure: CommandFailed) -> Ended:
    """Raises what is no array's answer: that the host was told something wrong."""
    if failure.result == Result.USAGE:
        raise failure
    return Ended(command.array, command.command, failure.result, reason=str(failure))
