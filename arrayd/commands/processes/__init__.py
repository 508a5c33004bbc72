"""The commands, one function each. To import a module here is to register its commands."""

from arrayd.commands.processes import estate, links, sending, status
from arrayd.commands.registry import REGISTRY

__all__ = ["REGISTRY", "estate", "links", "sending", "status"]
