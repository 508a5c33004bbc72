"""What commands are carried out on: the array, as `processes/` see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from arrayd.commands.asking import Send
    from arrayd.commands.events import Events
    from arrayd.commands.execution import Executor
    from arrayd.commands.monitors import Monitors
    from arrayd.commands.registry import Registry
    from arrayd.commands.sending import Sender
    from arrayd.commands.transit import Transit
    from arrayd.estate.estate import Estate
    from arrayd.replication.room import Replication
    from arrayd.tables import MonitorTable


class LinkStatus(NamedTuple):
    """How an array is linked: `round_trip` is in seconds; `reason` says why there is no connection."""

    array: str
    serial: str
    address: str | None
    connected: bool
    round_trip: float
    reason: str


class SessionStatus(NamedTuple):
    """An initiator that is logged in."""

    initiator: str
    port: int
    luns: list[int]


@dataclass
class Context:
    """The array `name`, which was started at `started_at`; `now()` is the time in seconds."""

    name: str
    serial: str
    version: str
    now: Callable[[], float]
    started_at: float
    registry: Registry
    events: Events
    estate: Estate
    replication: Replication
    links: Callable[[], list[LinkStatus]]
    sessions: Callable[[], list[SessionStatus]]
    ask: Send
    monitor_table: MonitorTable
    executor: Executor
    transit: Transit
    sender: Sender
    monitors: Monitors
