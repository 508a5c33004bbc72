"""The path information table of a host (figures 25 and 29): how each array is reached. A YAML file; `docs/arrayctl.md`.

    paths:
      primary:      {direct: "iscsi://127.0.0.1:3260/iqn.2026-11.io.arrayd:primary/9"}
      intermediate: {through: primary, lun: 10}
      remote:       {through: intermediate}

A row that is direct names the LUN of the array's command device. One that leads through another array may name the LUN,
on the array that the host is connected to, of the virtual volume that leads to its command device. A row may be both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, PlainValidator, model_validator

from arrayd.commands.messages import ADDRESSES_MAX
from arrayd.config.document import Tree, UnreadableError, read_tree
from arrayd.config.mistakes import ConfigError, Mistake
from arrayd.config.section import IscsiName, Lun, SecretFile, Section, mistake
from arrayd.config.validation import validate
from arrayd.host import addresses, groups
from arrayd.host.addresses import Address, IscsiAddress
from arrayd.host.array_names import NAME, ArrayName, hint
from arrayd.host.groups import Group, GroupName, GroupValue

ROWS_MAX = 256
OWN_LUN = -1
"""Stands for the LUN that a direct row names: by a number, or as a device whose number the kernel knows."""


def _address(value: object) -> Address:
    try:
        return addresses.parse(value)
    except ValueError as error:
        raise mistake(str(error)) from None


class Row(Section):
    """`paths.NAME`: how one array is reached."""

    direct: Annotated[Address, PlainValidator(_address)] | None = Field(default=None, description=addresses.EXPECTED)
    """The LUN of its command device, or any LUN of an array without one."""
    secret_file: SecretFile | None = Field(default=None, description="a file with a secret of 12 to 128 bytes")
    """The CHAP secret of the user that the URL names."""
    through: ArrayName | None = Field(default=None, description=NAME)
    """The array before it on the path."""
    lun: Lun | None = Field(default=None, description="a LUN")
    """Of the virtual volume that leads to its command device, on the array that the host is connected to."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.direct is None and self.through is None:
            raise mistake("direct or through, which says how the array is reached")
        if self.lun is not None and self.through is None:
            raise mistake("through beside it: direct names the LUN itself", "lun")
        user = self.direct.user if isinstance(self.direct, IscsiAddress) else None
        has_secret = isinstance(self.direct, IscsiAddress) and self.direct.credentials is not None
        if self.secret_file is not None and (user is None or has_secret):
            raise mistake("direct: iscsi://user@host:port/target/lun beside it, without a secret", "secret_file")
        if user is not None and not has_secret and self.secret_file is None:
            raise mistake("the file with the secret of the user that direct names", "secret_file")
        return self

    @property
    def address(self) -> Address | None:
        """Where it is connected directly, with the secret."""
        if isinstance(self.direct, IscsiAddress) and self.secret_file is not None:
            assert self.direct.user is not None
            return self.direct.with_secret(self.direct.user, self.secret_file.value)
        return self.direct


class PathFile(Section):
    """A whole path table file."""

    paths: dict[ArrayName, Row] = Field(
        min_length=1, max_length=ROWS_MAX, description="a mapping of arrays' names to how they are reached"
    )
    site: ArrayName | None = Field(default=None, description=NAME)
    """The array that is asked unless another is named; and the local side of its groups."""
    groups: dict[GroupName, GroupValue] = Field(
        default_factory=dict, max_length=groups.GROUPS_MAX, description="a mapping of names to groups of pairs"
    )
    initiator: IscsiName | None = Field(default=None, description="an iSCSI name")
    """The name that our own initiator logs in by; None: the machine's."""


class PathError(Exception):
    """There is no such path; the text says why."""


@dataclass(frozen=True, slots=True)
class Route:
    """The way of a command: to `asked`, which the host is connected to, and from there along `addresses`."""

    asked: str
    addresses: tuple[str, ...] = ()
    lun: int | None = None
    """On `asked`, of the command device of the array at the end, as far as the table knows it."""


class PathTable:
    """The table, and what can be found in it."""

    def __init__(
        self, file: PathFile, name: str = "the path table", refused: Mapping[str, ConfigError] | None = None
    ) -> None:
        """`refused`: groups that the file has, and that cannot be used."""
        self.refused = refused or {}
        self.rows = file.paths
        self.site = file.site
        self.initiator = file.initiator
        self.groups = groups.groups_of(file.groups)
        self._name = name

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads the file, and the secrets' files it names. Raises ConfigError with every mistake in it."""
        table = cls.read(path)
        if table.refused:
            raise ConfigError(table.mistakes)
        return table

    @classmethod
    def read(cls, path: Path) -> Self:
        """The same, but what is wrong in one group stands in the way of that group alone: see `refused`. Raises
        ConfigError where something else is wrong, too."""
        try:
            tree, mistakes = read_tree(path)
        except UnreadableError as error:
            raise ConfigError.of(path, [error.mistake]) from None
        base = path.absolute().parent
        file, more = validate(PathFile, tree, base)
        mistakes += [*more, *_broken_references(tree), *groups.broken_references(tree)]
        of_group: dict[str, list[Mistake]] = {}
        for each in mistakes:
            name = groups.group_of(each)
            if name is None:
                raise ConfigError.of(path, mistakes)
            of_group.setdefault(name, []).append(each)
        if of_group:
            file, _ = validate(PathFile, groups.without(tree, of_group), base)
        if file is None:
            raise ConfigError.of(path, mistakes)
        return cls(file, str(path), {name: ConfigError.of(path, wrong) for name, wrong in of_group.items()})

    @property
    def mistakes(self) -> list[str]:
        """What is wrong in the groups that are refused, a line each."""
        return [line for error in self.refused.values() for line in error.lines]

    @property
    def here(self) -> str:
        """The array that is asked when no other is meant: the site, or the first with a direct path."""
        return self.site or next(name for name, row in self.rows.items() if row.direct is not None)

    def group(self, name: str) -> Group:
        """The group of this name. Raises PathError."""
        if name in self.refused:
            raise PathError(str(self.refused[name]))
        found = self.groups.get(name)
        if found is None:
            raise PathError(f"{self._name} has no group {name}{hint(name, self.groups)}")
        return found

    def route(self, array: str, at: str | None = None) -> Route:
        """S3002: the way to `array`; from `at` where that is given, else from the site, else as its row says.

        Raises PathError.
        """
        self._known(array)
        start = at or self.site
        if start is not None:
            if self._known(start).direct is None:
                raise PathError(f"{start} cannot be asked: {self._name} has no direct path to it")
            found = self.onward(start, array)
            if found is not None:
                return Route(start, found, self._lun(array, start))
            if at is not None:
                raise PathError(f"{self._name} has no path from {at} to {array}")
        root, passed = self._upward(array)
        return Route(root, passed, self._lun(array, root))

    def onward(self, start: str, end: str) -> tuple[str, ...] | None:
        """The arrays after `start` on the shortest way to `end`; None if there is no way."""
        before: dict[str, str] = {start: start}
        queue = deque([start])
        while queue and end not in before:
            name = queue.popleft()
            for neighbour in self._neighbours(name):
                if neighbour not in before:
                    before[neighbour] = name
                    queue.append(neighbour)
        if end not in before:
            return None
        way: list[str] = []
        while end != start:
            way.insert(0, end)
            end = before[end]
        return tuple(way)

    def _known(self, array: str) -> Row:
        row = self.rows.get(array)
        if row is None:
            raise PathError(f"{self._name} has no array {array}{hint(array, self.rows)}")
        return row

    def _neighbours(self, array: str) -> Iterable[str]:
        through = self.rows[array].through
        if through is not None:
            yield through
        yield from (name for name, row in self.rows.items() if row.through == array)

    def _upward(self, array: str) -> tuple[str, tuple[str, ...]]:
        """The direct array that `array` is reached from, and the arrays from there on."""
        way: list[str] = []
        while self.rows[array].direct is None:
            way.insert(0, array)
            through = self.rows[array].through
            assert through is not None
            array = through
        return array, tuple(way)

    def _lun(self, array: str, asked: str) -> int | None:
        """The LUN on `asked` that leads to the command device of `array`, if the table has it."""
        row = self.rows[array]
        if array == asked:
            return OWN_LUN
        if row.lun is None or row.through is None:
            return None
        return row.lun if self._upward(row.through)[0] == asked else None


def _broken_references(tree: Tree) -> list[Mistake]:
    """Names of arrays that are not there, circles, a site that is not direct.

    Read from the tree, so that they are reported beside mistakes elsewhere in the file.
    """
    paths = tree.get("paths") if isinstance(tree, dict) else None
    if not isinstance(tree, dict) or not isinstance(paths, dict):
        return []
    rows = {name: row for name, row in paths.items() if isinstance(row, dict)}
    mistakes: list[Mistake] = []
    for name, row in rows.items():
        through = row.get("through")
        if isinstance(through, str) and (through not in paths or through == name):
            expected = f"{NAME}{hint(through, [each for each in paths if each != name])}"
            mistakes.append(Mistake(("paths", name, "through"), through, expected))
    if not mistakes:
        mistakes += [
            Mistake(("paths", name, "through"), rows[name].get("through"), reason)
            for name in rows
            if (reason := _no_way(rows, name))
        ]
    site = tree.get("site")
    if isinstance(site, str) and "direct" not in rows.get(site, {}):
        mistakes.append(Mistake(("site",), site, f"{NAME} that is direct"))
    return mistakes


def _no_way(rows: dict[str, dict[str, Tree]], name: str) -> str:
    """What is wrong with the way upward from this row; empty if nothing is."""
    passed = [name]
    while "direct" not in rows[passed[-1]]:
        through = rows[passed[-1]].get("through")
        if not isinstance(through, str) or through not in rows:
            return ""  # that row has a mistake of its own
        if through in passed:
            return f"a way that ends at a direct array, not a circle ({' > '.join([*passed, through])})"
        passed.append(through)
    if len(passed) - 1 > ADDRESSES_MAX:
        return f"a way of at most {ADDRESSES_MAX} arrays"
    return ""
