"""The connection table (3601, figure 36): the arrays that this one is linked with, and the way to each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from arrayd.config import values
from arrayd.config.values import Address
from arrayd.estate.errors import Conflict, Invalid, NotFound
from arrayd.estate.ledger import Ledger, Save
from arrayd.estate.rows import Source, source
from arrayd.link.peers import Links, Peer
from arrayd.log import get_logger
from arrayd.tables.estate import drop_connection, put_connection
from arrayd.virtual.near import NearEnd

log = get_logger("estate")


class ConnectionRow(NamedTuple):
    """One row of the table, as a command tells of it; `peer` is what the link knows of that array."""

    name: str
    address: Address | None
    source: Source
    peer: Peer


class Connections:
    """All of them. `links` know those that are in the ledger; `make_near(array)` makes the near end of one."""

    def __init__(self, ledger: Ledger, links: Links, make_near: Callable[[str], NearEnd]) -> None:
        self._ledger = ledger
        self._links = links
        self._make_near = make_near
        self._nears: dict[str, NearEnd] = {}

    def rows(self) -> list[ConnectionRow]:
        """All of them, by name."""
        held = self._ledger.held
        return [
            ConnectionRow(name, address, source(held.link.arrays, name), self._links.peers[name])
            for name, address in sorted(held.connections.items())
        ]

    def near(self, array: str) -> NearEnd:
        """The way to an array that this one is connected with; always the same one."""
        if array not in self._nears:
            self._nears[array] = self._make_near(array)
        return self._nears[array]

    # -- by command --------------------------------------------------------------------------------------------------

    async def add(self, name: str, address: str | None, save: Save) -> None:
        """Connects with an array, which is dialed at `address` (host:port), or dials (None). Raises EstateError."""
        await self._ledger.in_turn(partial(self._add, name, address, save))

    async def _add(self, name: str, address: str | None, save: Save) -> None:
        parsed = _parsed(name, address)
        held = self._ledger.held
        if name == held.config.array.name:
            raise Invalid(f"array {name}: this is its own name")
        if name in held.connections:
            there = "set in the configuration file" if name in held.link.arrays else "connected already"
            raise Conflict(f"array {name}: {there}")
        unprotected = held.link.secret_file is None and held.link.tls is None
        if parsed is not None and unprotected and not values.is_loopback(parsed):
            raise Invalid(f"array {name}: {parsed} is beyond loopback: that takes link.secret_file or link.tls")
        rows = replace(held.rows, connections={**held.rows.connections, name: parsed})
        self._ledger.check(rows)
        await self._ledger.commit(rows, put_connection(name, None if parsed is None else str(parsed)), save)
        self._links.add(name, parsed)
        log.info("connection added", array=name, address=str(parsed))

    async def remove(self, name: str, save: Save) -> None:
        """Ends the connection with an array that no LUN leads to. Raises EstateError."""
        await self._ledger.in_turn(partial(self._remove, name, save))

    async def _remove(self, name: str, save: Save) -> None:
        held = self._ledger.held
        if name in held.link.arrays:
            raise Conflict(f"array {name}: set in the configuration file")
        if name not in held.rows.connections:
            raise NotFound(f"array {name}: not connected with it")
        luns = held.leading_to(name)
        if luns:
            raise Conflict(f"array {name}: LUN {min(luns)} leads to it")
        if name in (held.config.commands.arrays or ()):
            raise Conflict(f"array {name}: commands.arrays of the configuration file names it")
        connections = {other: address for other, address in held.rows.connections.items() if other != name}
        await self._ledger.commit(replace(held.rows, connections=connections), drop_connection(name), save)
        self._links.remove(name)
        self._nears.pop(name, None)
        log.info("connection removed", array=name)


def _parsed(name: str, address: str | None) -> Address | None:
    try:
        values.array_name(name)
        return None if address is None else values.advertised_address(address)
    except ValueError as error:
        raise Invalid(f"array {name[:64]!r}: expected {error}") from error
