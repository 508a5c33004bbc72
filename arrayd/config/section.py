"""What sections of a YAML file are made of, the array's file or the host's: their base, how the value of a key is read,
and the keys that both files have."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from arrayd.config import values
from arrayd.config.values import Secret

EXPECTED = "expected"
"""Type of an error whose context says, under this key, what was expected; and under "key", of which key."""


def mistake(expected: str, key: str | None = None) -> PydanticCustomError:
    """What a validator raises; `key` names the key of the model that is wrong."""
    return PydanticCustomError(EXPECTED, "expected", {EXPECTED: expected, "key": key})


T = TypeVar("T")


def by(parse: Callable[[object], T]) -> PlainValidator:
    """A value is what `parse` makes of it, which raises ValueError with what was expected."""

    def validate(value: object) -> T:
        try:
            return parse(value)
        except ValueError as error:
            raise mistake(str(error)) from None

    return PlainValidator(validate)


def beside_file(parse: Callable[[object, Path], T]) -> PlainValidator:
    """For values that name files: relative ones stand beside the file that is read."""

    def validate(value: object, info: ValidationInfo) -> T:
        base = Path((info.context or {})["base"])
        try:
            return parse(value, base)
        except ValueError as error:
            raise mistake(str(error)) from None

    return PlainValidator(validate)


def _to_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


IscsiName = Annotated[str, by(values.iscsi_name)]
SecretFile = Annotated[Secret, beside_file(values.secret)]
VolumeName = Annotated[str, by(values.volume_name)]
Lun = Annotated[int, by(values.lun)]
FromList = BeforeValidator(_to_tuple)


class Section(BaseModel):
    """What all sections have in common: no unknown keys, no conversions, no changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
