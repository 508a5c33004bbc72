"""What became of a command, as a number: in every answer, and `arrayctl`'s exit code."""

from __future__ import annotations

from enum import IntEnum


class Result(IntEnum):
    """0, or why not. All others are 128 or more, so that small exit codes can carry answers, as with CCI."""

    OK = 0
    USAGE = 128
    """`arrayctl` was called wrongly, or its path table is wrong."""
    MALFORMED = 129
    """What was written is no command interface."""
    UNKNOWN_COMMAND = 130
    """The array has no command of this process number."""
    BAD_INPUT = 131
    """The input parameter is not what the command takes."""
    NOT_AUTHORISED = 132
    """The array's configuration does not name who sent it."""
    FAILED = 133
    """The command could not be carried out; nothing was changed."""
    NOT_FOUND = 134
    """What the command is about does not exist."""
    CONFLICT = 135
    """What the command is to make exists, is in use, or is set in the configuration file."""
    TOO_LONG = 136
    """The command, or its edited data, is longer than the interface holds."""
    BUSY = 137
    """Too many commands at once; nothing was done."""
    INTERRUPTED = 138
    """The array was stopped before it carried the command out; nothing was changed, and it will not be carried out."""
    FORGOTTEN = 139
    """The identification number is older than what the array remembers; it was not carried out now."""
    EXPIRED = 140
    """The time limit of the command passed; whether it was carried out is not known."""
    UNDELIVERABLE = 141
    """An array on the path could not reach the next one."""
    LOOP = 142
    """The path comes back on itself, or is too long."""
    NO_ROUTE = 143
    """An array on the path is not connected with any address that is left."""
    UNKNOWN_IDENTIFICATION = 144
    """The array knows of no command with this identification number."""
    NOT_EXECUTED = 145
    """A command before it in the same message failed."""
    NO_SLOT = 146
    """Every slot of the command device is in use."""
    UNREACHABLE = 147
    """`arrayctl` could not reach the array, or it went away in the middle."""
    INTERNAL = 148
    """A fault of the program; its log says more."""
