"""The commands, one function each. To import a module here is to register its commands."""

from arrayd.commands.processes import (
    estate,
    journals,
    links,
    pair_differences,
    pair_status,
    pair_verify,
    pairs,
    sending,
    status,
)
from arrayd.commands.registry import REGISTRY

__all__ = [
    "REGISTRY",
    "estate",
    "journals",
    "links",
    "pair_differences",
    "pair_status",
    "pair_verify",
    "pairs",
    "sending",
    "status",
]
