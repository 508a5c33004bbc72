"""Command interfaces of every kind, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from arrayd.commands.formats import Answer, Identification, Request, State
from arrayd.commands.messages import ADDRESSES_MAX, TIME_LIMIT_MS_MAX, Destination, Ended, Message, Method

U64 = st.integers(0, (1 << 64) - 1)
HOSTS = st.binary(min_size=8, max_size=8).filter(any)
IDENTIFICATIONS = st.builds(Identification, HOSTS, U64, U64)
ADDRESSES = st.text("abcdefghij0123456789-", min_size=1, max_size=32)
INPUTS = st.binary(max_size=200)

REQUESTS = st.builds(Request, st.integers(0, 65535), IDENTIFICATIONS, INPUTS, st.booleans())
ANSWERS = st.builds(Answer, st.sampled_from(State), IDENTIFICATIONS, st.integers(0, 65535), st.binary(max_size=200))
DESTINATIONS = st.builds(
    lambda addresses: Destination(tuple(addresses)), st.lists(ADDRESSES, min_size=1, max_size=ADDRESSES_MAX)
)
COMMANDS = st.lists(
    st.tuples(st.none() | DESTINATIONS, REQUESTS),
    min_size=1,
    max_size=5,
    unique_by=lambda pair: pair[1].identification,
)


def _parts(commands: list[tuple[Destination | None, Request]]) -> tuple[Destination | Request, ...]:
    return tuple(part for pair in commands for part in pair if part is not None)


MESSAGES = st.builds(
    lambda identification, commands, *rest: Message(identification, _parts(commands), *rest),
    IDENTIFICATIONS,
    COMMANDS,
    st.integers(1, TIME_LIMIT_MS_MAX),
    st.sampled_from(Method),
    st.booleans(),
    st.text(max_size=60),
    st.lists(ADDRESSES, max_size=ADDRESSES_MAX).map(tuple),
    st.booleans(),
)
ENDED = st.builds(Ended, ADDRESSES, st.integers(0, 65535), IDENTIFICATIONS, st.integers(0, 65535), INPUTS)
