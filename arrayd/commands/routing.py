"""Where a message goes next, or what of it is executed here (figures 31, 33, 37 and 41), as a function of what is in
it.

Arrays may differ in their methods, even on one path. So an array first finds itself among the addresses, wherever it
stands: the addresses up to its own are of the way that lies behind (with the method of figure 31 there are none left,
with that of figure 33 all are there); no address behind its own means that the command is for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from arrayd.commands.formats import Request
from arrayd.commands.messages import ADDRESSES_MAX, Destination, Message, Method
from arrayd.commands.results import Result


@dataclass(frozen=True, slots=True)
class Here:
    """`request` is executed here; `rest` is what is to be done then."""

    request: Request
    rest: Message | None


@dataclass(frozen=True, slots=True)
class There:
    """`message` is sent to `array`."""

    array: str
    message: Message


@dataclass(frozen=True, slots=True)
class Nowhere:
    """Neither, and why."""

    result: Result
    reason: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message is: the array's name and serial number, its method, and its connection information table (figure
    36): `connected(address)` is the name of the array with this address, or None if it is not there; `up(array)`
    whether the connection with it stands now."""

    name: str
    serial: str
    method: Method
    connected: Callable[[str], str | None]
    up: Callable[[str], bool]

    def is_ours(self, address: str) -> bool:
        """Whether this array has that address."""
        return address in (self.name, self.serial)


def next_step(message: Message, place: Place) -> Here | There | Nowhere:
    """What is done with `message` at `place`."""
    if place.name in message.trail:
        return Nowhere(Result.LOOP, f"the path comes back to {place.name}: {' -> '.join((*message.trail, place.name))}")
    head, rest = message.parts[0], message.parts[1:]
    if isinstance(head, Request):
        return Here(head, replace(message, parts=rest) if rest else None)
    addresses = head.addresses
    if len(set(addresses)) < len(addresses):
        return Nowhere(Result.LOOP, f"the path comes back on itself: {' -> '.join(addresses)}")
    before, left = _split(addresses, place)
    if any(place.connected(address) not in (None, *message.trail) for address in before):
        return Nowhere(Result.LOOP, f"the path comes back to {place.name}: {' -> '.join(addresses)}")
    if not left:
        return next_step(replace(message, parts=rest), place)
    if len(message.trail) >= ADDRESSES_MAX:
        return Nowhere(Result.LOOP, f"more than {ADDRESSES_MAX} arrays in a row")
    method = message.method or place.method
    if method == Method.SHORTEST:
        return _shortest(message, left, rest, place)
    array = place.connected(left[0])
    if array is None:
        return Nowhere(Result.NO_ROUTE, f"there is no connection with {left[0]}")
    kept = addresses if method == Method.KEEP else left[1:]
    return _send(message, array, kept, rest, place)


def _split(addresses: tuple[str, ...], place: Place) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The addresses of the way that lies behind, and of that which is left: those behind ours (S3304 and S3305), or
    all."""
    for index, address in enumerate(addresses):
        if place.is_ours(address):
            return addresses[:index], addresses[index + 1 :]
    return (), addresses


def _shortest(
    message: Message, left: tuple[str, ...], rest: tuple[Destination | Request, ...], place: Place
) -> There | Nowhere:
    """Figure 37, S3704 to S3708: the last address that is in the connection information table. One whose connection
    does not stand now is taken only if there is no other."""
    found = [(number, place.connected(left[number - 1])) for number in range(len(left), 0, -1)]
    known = [(number, array) for number, array in found if array is not None]
    for number, array in [*(each for each in known if place.up(each[1])), *known]:
        return _send(message, array, left[number:], rest, place)
    return Nowhere(Result.NO_ROUTE, f"there is no connection with any of {', '.join(left)}")


def _send(
    message: Message,
    array: str,
    addresses: tuple[str, ...],
    rest: tuple[Destination | Request, ...],
    place: Place,
) -> There | Nowhere:
    if array in message.trail:
        path = " -> ".join((*message.trail, place.name, array))
        return Nowhere(Result.LOOP, f"the path comes back on itself: {path}")
    parts = (Destination(addresses), *rest) if addresses else rest
    return There(array, replace(message, parts=parts, trail=(*message.trail, place.name)))
