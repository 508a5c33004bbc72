"""What two arrays that are not there (`pair_arrays.py`) do wrong when a test wants it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from arrayd.commands.results import Result
from tests.host.pair_arrays import Fault, Refused


def refusing(result: Result, reason: str) -> Fault:
    """It is not done."""

    def fault(_operation: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        raise Refused(result, reason)

    return fault


def losing(operation: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """It is done, and nobody hears of it in time."""
    operation()
    raise Refused(Result.EXPIRED, "the time limit passed before the command had ended; it goes on")


def after(first: Callable[[], object]) -> Fault:
    """Something happens before it is done."""

    def fault(operation: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        first()
        return operation()

    return fault
