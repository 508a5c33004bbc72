"""Every verb of arrayctl: what the help says of it, and the file that has it, imported when the verb is called.

Scripts call arrayctl in loops, and importing takes most of its time: no verb pays for another, and the help for none.
"""

from __future__ import annotations

from collections.abc import Callable

import click


def _showing() -> tuple[click.Command, ...]:
    from arrayd.host import verbs

    return verbs.ALL


def _sending() -> tuple[click.Command, ...]:
    from arrayd.host import sending_verbs

    return sending_verbs.ALL


def _changing_pairs() -> tuple[click.Command, ...]:
    from arrayd.host import pair_verbs

    return pair_verbs.ALL


def _watching_pairs() -> tuple[click.Command, ...]:
    from arrayd.host import pair_watching

    return pair_watching.ALL


def _verifying_pairs() -> tuple[click.Command, ...]:
    from arrayd.host import pair_verify_verb

    return pair_verify_verb.ALL


_VERBS: dict[str, tuple[Callable[[], tuple[click.Command, ...]], str]] = {
    "arrays": (_showing, "List the path table: how each array is reached."),
    "status": (_showing, "Say how arrays are."),
    "luns": (_showing, "List the LUN map of an array."),
    "events": (_showing, "List the event log of an array, or follow it."),
    "commands": (_showing, "List the commands of an array, or what one takes."),
    "find": (_showing, "Ask for LUNs of command devices, to fill in the path table."),
    "send": (_sending, "Have an array carry out a command."),
    "send-many": (_sending, "Send several commands in one message."),
    "paircreate": (_changing_pairs, "Make the pairs of a group."),
    "pairsplit": (_changing_pairs, "Split the pairs of a group, or end them."),
    "pairresync": (_changing_pairs, "Resume the pairs of a group."),
    "horctakeover": (_changing_pairs, "Have the local volumes of a group written."),
    "replicate": (_changing_pairs, "Drive the pairs of a group by the loop of figure 16."),
    "pairdisplay": (_watching_pairs, "Show the pairs of a group."),
    "pairvolchk": (_watching_pairs, "Say by the exit code what the volumes of a group are."),
    "pairevtwait": (_watching_pairs, "Wait until the pairs of a group have a status."),
    "pairverify": (_verifying_pairs, "Compare the pairs of a group, and repair what differs."),
    "pairsyncwait": (_watching_pairs, "Wait until the S-VOLs of a group have what the P-VOLs have now."),
}

SHORT_HELP = {name: _VERBS[name][1] for name in sorted(_VERBS)}
"""What the list of verbs says of each, in the order of their names."""


def verb(name: str) -> click.Command | None:
    """The verb of this name, imported; None if there is none."""
    if name not in _VERBS:
        return None
    return next(each for each in _VERBS[name][0]() if each.name == name)
