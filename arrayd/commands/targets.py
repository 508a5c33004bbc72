"""Whom a command of an array is for: what `send` and monitors take."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from arrayd.commands.formats import to_json
from arrayd.commands.messages import ADDRESSES_MAX, TIME_LIMIT_MS_MAX
from arrayd.commands.registry import Input

INPUT_BYTES_MAX = 4096
"""Of a command that one array sends another."""
LUN_MAX = 16383


class Told(Input):
    """A command, and the way to who is to execute it: addresses, or the LUN of a virtual volume of its command
    device."""

    path: list[str] = Field(
        default=[],
        max_length=ADDRESSES_MAX,
        description="names or serial numbers of the arrays on the way, the last one executes",
    )
    lun: int | None = Field(default=None, ge=0, le=LUN_MAX, description="LUN here that leads to its command device")
    method: Literal["as-configured", "delete", "keep", "shortest"] = "as-configured"
    command: str = Field(pattern=r"^([a-z][a-z0-9-]{0,31}|[0-9]{1,5})$", description="name or number of the command")
    input: dict[str, Any] = Field(default={}, description="its input parameter")
    timeout: float = Field(default=10.0, gt=0, le=TIME_LIMIT_MS_MAX / 1000, description="seconds")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.path) == (self.lun is not None):
            raise ValueError("either path or lun")
        if len(to_json(self.input)) > INPUT_BYTES_MAX:
            raise ValueError(f"an input of {INPUT_BYTES_MAX} bytes at the most")
        return self
