"""Commands from a host: `from arrayd.host import Host`. See `docs/host-library.md`; the command line is `cli.py`.

What a program imports from here is loaded when it asks for it: the command line is in this package, too, and tells how
it is used without that.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arrayd.host.library import Command, CommandFailed, Ended, Host, PathTable, Result, Way

__all__ = ["Command", "CommandFailed", "Ended", "Host", "PathTable", "Result", "Way"]


def __getattr__(name: str) -> object:
    """The names of the library (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from arrayd.host import library

    return getattr(library, name)
