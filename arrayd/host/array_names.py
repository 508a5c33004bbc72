"""How the host's file names arrays: by name or by serial number, as arrays take an address."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated

from pydantic import PlainValidator

from arrayd.config import values
from arrayd.config.section import mistake

NAME = "the name of an array under paths"


def _array(value: object) -> str:
    try:
        return values.array_name(value)
    except ValueError:
        pass
    try:
        return values.serial(value)
    except ValueError:
        raise mistake(NAME if isinstance(value, str) else f"{NAME}, in quotes") from None


ArrayName = Annotated[str, PlainValidator(_array)]
"""Name or serial number: what arrays take as an address."""


def hint(name: str, known: Iterable[str]) -> str:
    """Goes behind what was expected: the known name that was probably meant, if there is one."""
    near = difflib.get_close_matches(name[:64], list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""
