"""The history: what was executed is not executed again, whatever is forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.commands import history
from arrayd.commands.formats import Answer, Identification, State
from arrayd.commands.history import (
    BYTES_MAX,
    ENTRIES_MAX,
    HOST_SECONDS,
    REMEMBER_SECONDS,
    SILENT_SECONDS,
    ForgottenError,
    FullError,
    History,
)
from tests.lab.search import examples


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def number(counter: int, epoch: int = 1, host: bytes = b"host0001") -> Identification:
    return Identification(host, epoch, counter)


def execute(book: History, identification: Identification, edited: bytes = b"") -> None:
    entry = book.begin(identification, b"", True)
    book.end(entry, Answer(State.DONE, identification, 0, edited))


def test_an_answer_is_there_for_who_asks_again() -> None:
    clock = Clock()
    book = History(clock)
    assert book.find(number(1)) is None
    execute(book, number(1), b"{}")
    clock.now += REMEMBER_SECONDS - 1
    entry = book.find(number(1))
    assert entry is not None
    assert entry.answer == Answer(State.DONE, number(1), 0, b"{}")


def test_what_is_forgotten_is_refused_and_all_before_it() -> None:
    clock = Clock()
    book = History(clock)
    execute(book, number(5))
    clock.now += REMEMBER_SECONDS
    book.prune()
    for forgotten in (number(5), number(4), number(9, epoch=0)):
        with pytest.raises(ForgottenError):
            book.find(forgotten)
    assert book.find(number(6)) is None
    assert book.find(number(1, epoch=2)) is None
    assert book.find(number(5, host=b"host0002")) is None


def test_the_oldest_goes_for_one_more_and_what_runs_stays() -> None:
    book = History(Clock())
    running = book.begin(number(1), b"", False)
    for counter in range(2, ENTRIES_MAX + 1):
        execute(book, number(counter))
    execute(book, number(1, host=b"host0002"))
    assert len(book) == ENTRIES_MAX
    assert book.find(number(1)) is running
    with pytest.raises(ForgottenError):
        book.find(number(2))


def test_no_room_for_more_than_run_at_once() -> None:
    book = History(Clock())
    for counter in range(ENTRIES_MAX):
        book.begin(number(counter), b"", False)
    with pytest.raises(FullError):
        book.begin(number(ENTRIES_MAX), b"", False)


def test_a_command_that_its_own_room_would_forget_is_refused() -> None:
    """It is older than the one that would have to go: taking it would let it be executed twice later."""
    book = History(Clock())
    for counter in range(10, 10 + ENTRIES_MAX):
        execute(book, number(counter))
    with pytest.raises(FullError):
        book.begin(number(1), b"", False)
    with pytest.raises(ForgottenError):
        book.find(number(1))


def test_edited_data_is_bounded() -> None:
    book = History(Clock())
    for counter in range(1, 40):
        execute(book, number(counter), bytes(1 << 20))
    assert len(book) <= BYTES_MAX >> 20


def test_hosts_are_bounded_and_forgotten_when_they_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "HOSTS_MAX", 3)
    clock = Clock()
    book = History(clock)
    for host in range(3):
        execute(book, number(1, host=bytes([host + 1]) * 8))
    with pytest.raises(FullError):
        book.begin(number(1, host=b"host0009"), b"", False)
    clock.now += SILENT_SECONDS + 1
    book.prune()
    book.begin(number(1, host=b"host0009"), b"", False)
    assert len(book.hosts) == 3


def test_hosts_that_change_nothing_leave_no_mark() -> None:
    clock = Clock()
    book = History(clock)
    book.end(book.begin(number(1), b"", False), Answer(State.DONE, number(1)))
    clock.now += REMEMBER_SECONDS
    book.prune()
    assert book.hosts == {}
    assert book.find(number(1)) is None


def test_silent_hosts_are_forgotten() -> None:
    clock = Clock()
    book = History(clock)
    for host in range(3):
        execute(book, number(1, host=bytes([host + 1]) * 8))
    clock.now += HOST_SECONDS + 1
    assert book.prune_hosts() == []  # what is remembered of them keeps them
    book.prune()
    assert len(book.prune_hosts()) == 3
    execute(book, number(1, host=b"host0009"))


def test_who_waits_is_told_once() -> None:
    book = History(Clock())
    entry = book.begin(number(1), b"", False)
    told: list[Answer] = []
    dropped: list[Answer] = []
    entry.when_ended(told.append)
    entry.when_ended(dropped.append)
    entry.drop(dropped.append)
    answer = Answer(State.DONE, number(1))
    book.end(entry, answer)
    entry.when_ended(told.append)
    assert told == [answer, answer]
    assert dropped == []


PAUSES = st.sampled_from([0.0, 1.0, 700.0, HOST_SECONDS])


@settings(max_examples=examples(200))
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.integers(0, 2), st.integers(0, 12), st.sampled_from([0.0, 1.0, 700.0, HOST_SECONDS])
        ),
        max_size=60,
    )
)
def test_nothing_is_executed_twice(sent: list[tuple[int, int, int, float]]) -> None:
    """In any order, at any pace, with little room; but for a host that was silent for longer than anything lives."""
    patch = pytest.MonkeyPatch()
    patch.setattr(history, "ENTRIES_MAX", 5)
    clock = Clock()
    book = History(clock)
    executed: dict[Identification, float] = {}
    heard: dict[bytes, float] = {}
    try:
        for host, epoch, counter, pause in sent:
            clock.now += pause
            book.prune()
            for gone in book.prune_hosts():
                assert clock.now - heard.pop(gone) > HOST_SECONDS
                executed = {key: at for key, at in executed.items() if key.host != gone}
            identification = Identification(bytes([host + 1]) * 8, epoch, counter)
            try:
                if book.find(identification) is None:
                    execute(book, identification)
                    assert identification not in executed
                    executed[identification] = heard[identification.host] = clock.now
            except (ForgottenError, FullError):
                pass
    finally:
        patch.undo()
