"""Where messages go: the flows of figures 31, 33, 35, 37, 39 and 41 as tables, and all of them mixed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.commands.formats import Identification, Request
from arrayd.commands.messages import ADDRESSES_MAX, Destination, Message, Method
from arrayd.commands.results import Result
from arrayd.commands.routing import Here, Nowhere, Place, There, next_step

WHO = Identification(b"host0001", 1, 1)
FIRST = Request(2, WHO)
SECOND = Request(3, Identification(b"host0001", 1, 2))


def place(name: str, *connected: str, method: Method = Method.DELETE, down: str = "") -> Place:
    """An array with serial `s-NAME`, connected with others, which are known by name and by serial."""
    known = {name: name for name in connected} | {f"s-{name}": name for name in connected}
    return Place(name, f"s-{name}", method, known.get, lambda array: array != down)


def message(*parts: Destination | Request, method: Method = Method.AS_CONFIGURED) -> Message:
    return Message(WHO, parts, 1000, method)


def to(*addresses: str) -> Destination:
    return Destination(addresses)


def test_figure_31_the_head_address_is_deleted_and_the_rest_sent_on() -> None:
    """S3103 to S3106: 2801 becomes 2802 at the first array, and 2803 at the second; the third executes it (S3110)."""
    sent = next_step(message(to("b", "c"), FIRST), place("a", "b"))
    assert sent == There("b", replace(message(to("c"), FIRST), trail=("a",)))
    assert isinstance(sent, There)
    sent = next_step(sent.message, place("b", "a", "c"))
    assert sent == There("c", replace(message(FIRST), trail=("a", "b")))
    assert isinstance(sent, There)
    assert next_step(sent.message, place("c", "b")) == Here(FIRST, None)


def test_figure_33_addresses_are_kept_and_each_array_finds_its_place() -> None:
    """S3303 to S3307."""
    whole = message(to("b", "c"), FIRST, method=Method.KEEP)
    sent = next_step(whole, place("a", "b"))  # not among them: to the head (S3306)
    assert sent == There("b", replace(whole, trail=("a",)))
    sent = next_step(replace(whole, trail=("a",)), place("b", "c"))  # to the one behind its own (S3305)
    assert sent == There("c", replace(whole, trail=("a", "b")))
    assert next_step(replace(whole, trail=("a", "b")), place("c", "b")) == Here(
        FIRST, None
    )  # its own is the last (S3303)


def test_figure_35_the_first_array_sends_straight_to_the_third() -> None:
    """3501 becomes 3502: both addresses are deleted."""
    sent = next_step(message(to("b", "c"), FIRST, method=Method.SHORTEST), place("a", "b", "c"))
    assert sent == There("c", replace(message(FIRST, method=Method.SHORTEST), trail=("a",)))


@pytest.mark.parametrize(
    ("connected", "array", "left"),
    [
        (("b", "c", "d"), "d", ()),
        (("b", "c"), "c", ("d",)),
        (("b",), "b", ("c", "d")),
    ],
)
def test_figure_37_to_the_farthest_address_that_is_connected(
    connected: tuple[str, ...], array: str, left: tuple[str, ...]
) -> None:
    """S3704 to S3708."""
    sent = next_step(message(to("b", "c", "d"), FIRST, method=Method.SHORTEST), place("a", *connected))
    assert isinstance(sent, There)
    assert sent.array == array
    assert sent.message.parts == ((Destination(left), FIRST) if left else (FIRST,))


def test_figure_37_a_connection_that_stands_goes_before_a_shorter_way_that_does_not() -> None:
    whole = message(to("b", "c"), FIRST, method=Method.SHORTEST)
    for connected, array in ((("b", "c"), "b"), (("c",), "c")):
        sent = next_step(whole, place("a", *connected, down="c"))
        assert isinstance(sent, There)
        assert sent.array == array


def test_figure_37_connected_with_none_of_them_is_an_error() -> None:
    step = next_step(message(to("b", "c"), FIRST, method=Method.SHORTEST), place("a", "x"))
    assert step == Nowhere(Result.NO_ROUTE, "there is no connection with any of b, c")


def test_figure_39_and_41_each_executes_its_command_and_sends_on_what_is_left() -> None:
    """Data 3901 becomes 3902 at the first array (S4104 to S4106); the second executes the first command (S4107 to
    S4109) and sends 3903 on (S4110)."""
    sent = next_step(message(to("b"), FIRST, to("c"), SECOND), place("a", "b"))
    assert isinstance(sent, There)
    assert (sent.array, sent.message.parts) == ("b", (FIRST, to("c"), SECOND))
    step = next_step(sent.message, place("b", "c"))
    assert isinstance(step, Here)
    assert step.request == FIRST
    assert step.rest is not None
    sent = next_step(step.rest, place("b", "c"))
    assert isinstance(sent, There)
    assert (sent.array, sent.message.parts) == ("c", (SECOND,))
    assert next_step(sent.message, place("c", "b")) == Here(SECOND, None)


def test_its_own_address_at_the_head_is_stripped() -> None:
    assert next_step(message(to("a"), FIRST), place("a")) == Here(FIRST, None)
    sent = next_step(message(to("s-a", "s-b"), FIRST), place("a", "b"))
    assert isinstance(sent, There)
    assert (sent.array, sent.message.parts) == ("b", (FIRST,))


def test_an_address_may_be_a_serial_number() -> None:
    sent = next_step(message(to("s-b", "s-c"), FIRST), place("a", "b"))
    assert isinstance(sent, There)
    assert sent.array == "b"


def test_no_connection_with_the_next_one() -> None:
    assert next_step(message(to("b"), FIRST), place("a", "c")) == Nowhere(
        Result.NO_ROUTE, "there is no connection with b"
    )


@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize(
    "told",
    [
        message(to("b", "c", "b"), FIRST),
        replace(message(to("a"), FIRST), trail=("b", "a")),
        replace(message(to("b"), FIRST), trail=("b",)),
        replace(message(to("b"), FIRST), trail=tuple(f"x{n}" for n in range(ADDRESSES_MAX))),
    ],
)
def test_a_path_that_comes_back_on_itself_or_never_ends_is_refused(told: Message, method: Method) -> None:
    step = next_step(replace(told, method=method), place("a", "b", "c"))
    assert isinstance(step, Nowhere)
    assert step.result == Result.LOOP


@given(
    methods=st.lists(st.sampled_from([Method.DELETE, Method.KEEP, Method.SHORTEST]), min_size=2, max_size=8),
    serials=st.lists(st.booleans(), min_size=8, max_size=8),
    own_first=st.booleans(),
    shortcuts=st.booleans(),
)
def test_arrays_of_different_methods_work_together(
    methods: list[Method], serials: list[bool], own_first: bool, shortcuts: bool
) -> None:
    """Any mix of them takes a command to the last array of any path, and to no other, for all shortcuts there are."""
    names = [f"array{number}" for number in range(len(methods))]
    addresses = [f"s-{name}" if serial else name for name, serial in zip(names, serials, strict=False)]
    left: Message = message(to(*addresses[0 if own_first else 1 :]), FIRST)
    at, passed = 0, []
    while True:
        passed.append(at)
        ahead = names[at + 1 :] if shortcuts else names[at + 1 : at + 2]
        step = next_step(left, place(names[at], *names[:at], *ahead, method=methods[at]))
        if isinstance(step, Here):
            break
        assert isinstance(step, There)
        at, left = names.index(step.array), step.message
    assert (at, step.rest) == (len(names) - 1, None)
    assert passed == sorted(set(passed))
    if not shortcuts or Method.SHORTEST not in methods:
        assert passed == list(range(len(names)))
