"""What the configuration says, as the rooms want to know it: who may log in, and what the links are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from arrayd.commands.messages import Method
from arrayd.commands.permission import Permission
from arrayd.commands.routing import Place
from arrayd.config.schema import ChapConfig, Config, DiscoveryConfig, LinkConfig
from arrayd.config.tls import contexts
from arrayd.config.values import Address
from arrayd.estate.rows import Holdings
from arrayd.iscsi.chap import Credentials
from arrayd.iscsi.login import Access
from arrayd.iscsi.session import InitiatorRule, NodeRules
from arrayd.link.peers import Peer, Settings

NEEDS_RESTART = ("array", "state_dir", "iscsi.listen", "iscsi.target", "iscsi.poll_us", "link")
"""Keys that no reload changes; of volumes, see `arrayd.estate.estate`."""


def node_rules(config: Config) -> NodeRules:
    """Who may log in, as the iSCSI node wants to know it."""
    initiators: Mapping[str, InitiatorRule] | None = None
    if config.iscsi.initiators is not None:
        initiators = {
            entry.name: InitiatorRule(_access(entry), None if entry.luns is None else frozenset(entry.luns))
            for entry in config.iscsi.initiators
        }
    discovery = config.iscsi.discovery_chap
    return NodeRules(initiators, Access() if discovery is None else _access(discovery), config.iscsi.advertise)


def _access(entry: DiscoveryConfig) -> Access:
    return Access(_credentials(entry.chap), _credentials(entry.mutual_chap))


def _credentials(chap: ChapConfig | None) -> Credentials | None:
    return None if chap is None else Credentials(chap.user, chap.secret)


def link_settings(config: Config, connections: Mapping[str, Address | None]) -> Settings:
    """The links as their room wants to know them, to these arrays. Raises ValueError, for the files of TLS."""
    array, link = config.array, config.link or LinkConfig()
    client = server = None
    if link.tls is not None:
        client, server = contexts(link.tls.certificate, link.tls.key, link.tls.ca)
    secret = link.secret_file.value if link.secret_file is not None else b""
    poll_us = config.iscsi.poll_us
    return Settings(array.name, array.serial, connections, secret, link.timeout, link.listen, client, server, poll_us)


def port_identifier(serial: str) -> int:
    """A target port group and relative target port identifier, 1 to 65535, that other arrays will hardly share: hosts
    may see one volume through several arrays (ALUA)."""
    return int.from_bytes(hashlib.sha256(serial.encode()).digest()[:2], "big") % 0xFFFF + 1


def permission(held: Holdings) -> Permission:
    """Who may command this array."""
    commands = held.config.commands
    initiators = None if commands.initiators is None else frozenset(commands.initiators)
    arrays = frozenset(held.connections if commands.arrays is None else commands.arrays)
    return Permission(held.config.array.name, initiators, arrays)


def place(held: Holdings, peers: Mapping[str, Peer]) -> Place:
    """Where this array is among others, for commands that go on to them (figure 36)."""
    array, method = held.config.array, Method[held.config.commands.method.upper()]

    def connected(address: str) -> str | None:
        if address in peers:
            return address
        return next((name for name, peer in peers.items() if peer.serial == address), None)

    def is_up(name: str) -> bool:
        return peers[name].stream is not None

    return Place(array.name, array.serial, method, connected, is_up)


def changed_key(old: Config, new: Config) -> str | None:
    """A key that is another, and that no reload changes."""
    return next((key for key in NEEDS_RESTART if _at(old, key) != _at(new, key)), None)


def _at(config: Config, key: str) -> object:
    value: object = config
    for part in key.split("."):
        value = getattr(value, part)
    return value
