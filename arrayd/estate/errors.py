"""Why a change of the estate was refused: nothing was changed. The text is one line, for people."""

from __future__ import annotations


class EstateError(Exception):
    """One of those below."""


class NotFound(EstateError):
    """What it is about does not exist."""


class Conflict(EstateError):
    """What it is to make exists, or what it is to change is in use, or is set in the configuration file."""


class Invalid(EstateError):
    """What was asked for makes no sense, or is more than there may be."""


class Failed(EstateError):
    """The disk, or the system, says no."""
