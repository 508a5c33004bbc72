"""A tree of YAML to a typed section, or every mistake in it: for the array's file and the host's."""

import difflib
import typing
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from arrayd.config.document import REFUSED, Tree
from arrayd.config.mistakes import MISSING, KeyPath, Mistake
from arrayd.config.section import EXPECTED, Section

S = TypeVar("S", bound=Section)


def validate(schema: type[S], tree: Tree, base: Path) -> tuple[S | None, list[Mistake]]:
    """`tree` as `schema` says, None where it is not so; files that it names are relative to `base`."""
    try:
        return schema.model_validate(tree, context={"base": base}), []
    except ValidationError as error:
        errors = error.errors()
        return None, [
            mistake_of(schema, each)
            for each in errors
            if not _refused_already(tree, each) and not _follows(each, errors)
        ]


def _refused_already(tree: Tree, details: ErrorDetails) -> bool:
    """Whether the walk over the YAML has complained about this value."""
    for part in details["loc"]:
        if isinstance(tree, dict) and isinstance(part, str):
            tree = tree.get(part)
        elif isinstance(tree, list) and isinstance(part, int):
            tree = tree[part]
    return tree is REFUSED or details["input"] is REFUSED


def _follows(details: ErrorDetails, errors: list[ErrorDetails]) -> bool:
    """Whether a list is too short only because what is in it is wrong."""
    own = details["loc"]
    return details["type"] == "too_short" and any(each["loc"][: len(own)] == own for each in errors if each != details)


def mistake_of(schema: type[Section], details: ErrorDetails) -> Mistake:
    """What pydantic found wrong in a tree for `schema`, as a user reads it."""
    path: KeyPath = tuple(part for part in details["loc"] if part != "[key]")
    value = details["input"]
    context = details.get("ctx", {})
    section, field = _schema_at(schema, path)
    if details["type"] == EXPECTED:
        key = context["key"]
        if key is not None:
            value = value.get(key, MISSING) if isinstance(value, dict) else MISSING
            path = (*path, key)
        return Mistake(path, value, context[EXPECTED])
    if details["type"] == "missing":
        value = MISSING
    if details["type"] == "extra_forbidden":
        return Mistake(path, value, _known_keys(section, str(path[-1])))
    description = field.description if field is not None and field.description else "a mapping"
    if details["type"] == "too_long":
        description += f", at most {context['max_length']}"
    if details["type"] == "too_short":
        description += f", at least {context['min_length']}"
    return Mistake(path, value, description)


def _schema_at(schema: type[Section], path: KeyPath) -> tuple[type[BaseModel], FieldInfo | None]:
    """The innermost section around this path, and the field of it the path leads to."""
    section: type[BaseModel] = schema
    field: FieldInfo | None = None
    for part in path:
        if field is not None and (inner := _section_in(field.annotation)) is not None:
            if isinstance(part, str) and _is_mapping(field.annotation):
                section, field = inner, None
                continue
            section = inner
            if isinstance(part, int):
                field = None
                continue
        field = _fields(section).get(part) if isinstance(part, str) else field
    return section, field


def _fields(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """A section's fields by the keys that the file has: those of a Python keyword's name have an alias."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def _section_in(annotation: object) -> type[Section] | None:
    """The section class inside `X | None`, `tuple[X, ...]`, `dict[K, X]`."""
    arguments = typing.get_args(annotation)
    if not arguments:
        return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None
    found = (_section_in(argument) for argument in arguments)
    return next((section for section in found if section is not None), None)


def _is_mapping(annotation: object) -> bool:
    return typing.get_origin(annotation) is dict


def _known_keys(section: type[BaseModel], key: str) -> str:
    known = list(_fields(section))
    if not known:
        return "no key: it has none"
    near = difflib.get_close_matches(key[:64], known, n=1)
    return f"a known key; did you mean {near[0]}?" if near else f"one of the keys {', '.join(known)}"
