"""Groups of pairs in a host's YAML, beside `paths:`: the consistency groups that `-g GROUP` names. `docs/arrayctl.md`.

    site: primary
    groups:
      oradb:
        volumes:
          data: {primary: 0, remote: 0}
          log:  {primary: 1, remote: 1}
        journals: {primary: 20, remote: 20}
        legs:
          - {from: primary, to: remote, mode: async}
        driver: arrays

A volume is its LUN on each array. A leg says between which arrays its pairs lie, and which of them has the P-VOLs when
they are made. After that it is the arrays that say: a swap turns pairs round, and the file stays as it is. A group of
synchronous pairs (`mode: sync`, and `fence: never`, `data` or `status`) has no journals.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainValidator

from arrayd.config import values
from arrayd.config.document import Tree
from arrayd.config.mistakes import MISSING, KeyPath, Mistake, dotted
from arrayd.config.section import FromList, Lun, Section, VolumeName, mistake
from arrayd.host.array_names import NAME, ArrayName, hint

GROUPS_MAX = 256
GROUP_VOLUMES_MAX = 1024
"""Of one group: as many as an array has LUNs."""
SITES_MAX = 3
"""Arrays that one volume lies on."""
LEGS_MAX = 1
"""A second leg is a third site, which there is not yet."""

DRIVERS = ("arrays", "host")
"""Who goes through the loop of figure 16."""
FENCE_LEVELS = ("never", "data", "status")
"""Fence levels of synchronous pairs, as CCI has them. The first is that of a leg which names none."""

LUNS = "a mapping of arrays' names to LUNs"
SEVERAL_LUNS = f"{LUNS}, 1 to {SITES_MAX} of them"
SOME_VOLUMES = f"a mapping of volumes' names to their LUN on each array, 1 to {GROUP_VOLUMES_MAX} of them"
ONE_LEG = "a list of one leg, {from: ARRAY, to: ARRAY, mode: async or sync}: second legs are not there yet"
GROUP = "a mapping with the keys volumes, legs and, optionally, journals and driver"
ONE_DRIVER = " or ".join(DRIVERS)
LEG = "a mapping with the keys from, to, mode and, optionally, fence"
ONE_MODE = "async or sync"
ONE_FENCE = "never, data or status"

GroupName = VolumeName
"""A group is named by the rules of volumes."""


class Mode(StrEnum):
    """How a leg's pairs follow."""

    ASYNC = "async"
    """The host's write is answered once it is in the journal here."""
    SYNC = "sync"
    """It is answered once both arrays have it."""


def _of(kind: type[dict[Any, Any]] | type[list[Any]], count_max: int, expected: str) -> BeforeValidator:
    """A mapping or a list that has something in it, and not too much. Says the same of whatever is wrong with it."""

    def check(value: Any) -> Any:
        if not isinstance(value, kind) or not 0 < len(value) <= count_max:
            raise mistake(expected)
        return value

    return BeforeValidator(check)


def _mode(value: object) -> Mode:
    if isinstance(value, str) and value in tuple(Mode):
        return Mode(value)
    raise mistake(ONE_MODE)


def _one_of(values: tuple[str, ...], expected: str) -> PlainValidator:
    """One of these words, or a mistake that says which there are."""

    def check(value: object) -> str:
        if value in values:
            return str(value)
        raise mistake(expected)

    return PlainValidator(check)


def _mapping(expected: str) -> BeforeValidator:
    """A mapping, or a mistake that says what it is for."""

    def check(value: Any) -> Any:
        if not isinstance(value, dict):
            raise mistake(expected)
        return value

    return BeforeValidator(check)


LunOnEach = Annotated[dict[ArrayName, Lun], _of(dict, SITES_MAX, SEVERAL_LUNS)]


class LegSection(Section):
    """`groups.NAME.legs[]`: between which arrays the group's pairs lie."""

    start: ArrayName = Field(alias="from", description=NAME)
    """The array whose volumes become the P-VOLs."""
    end: ArrayName = Field(alias="to", description=NAME)
    mode: Annotated[Mode, PlainValidator(_mode)] = Field(description=ONE_MODE)
    fence: Annotated[str, _one_of(FENCE_LEVELS, ONE_FENCE)] | None = Field(default=None, description=ONE_FENCE)
    """Of synchronous pairs, unless paircreate is told otherwise."""


class GroupSection(Section):
    """`groups.NAME`: the volumes whose writes keep one order, their journals, and where the pairs lie."""

    volumes: Annotated[dict[VolumeName, LunOnEach], _of(dict, GROUP_VOLUMES_MAX, SOME_VOLUMES)] = Field(
        description=SOME_VOLUMES
    )
    journals: LunOnEach | None = Field(default=None, description=SEVERAL_LUNS)
    """By array. One that has none here takes an unused volume that is marked as a journal."""
    driver: Annotated[str, _one_of(DRIVERS, ONE_DRIVER)] = Field(default=DRIVERS[0], description=ONE_DRIVER)
    """Who drives its pairs, unless paircreate is told otherwise."""
    legs: Annotated[tuple[Annotated[LegSection, _mapping(LEG)], ...], FromList, _of(list, LEGS_MAX, ONE_LEG)] = Field(
        description=ONE_LEG
    )


GroupValue = Annotated[GroupSection, _mapping(GROUP)]


@dataclass(frozen=True, slots=True)
class GroupVolume:
    """A volume of a group."""

    name: str
    """What pairdisplay calls PairVol."""
    luns: Mapping[str, int]
    """Its LUN, by array."""


@dataclass(frozen=True, slots=True)
class Leg:
    """Where a group's pairs lie: from the array that had the P-VOLs first to the one with the S-VOLs."""

    start: str
    end: str
    mode: Mode
    fence: str | None = None
    """One of FENCE_LEVELS; None: the pairs are asynchronous."""

    def peer(self, array: str) -> str | None:
        """The array at the other end; None where `array` is at neither."""
        return {self.start: self.end, self.end: self.start}.get(array)


@dataclass(frozen=True, slots=True)
class Group:
    """A consistency group, as the host's file has it."""

    name: str
    volumes: tuple[GroupVolume, ...]
    journals: Mapping[str, int]
    """The LUN of its journal, by array, where the file names one."""
    legs: tuple[Leg, ...]
    driver: str = DRIVERS[0]
    """Who is to drive its pairs when they are made: one of DRIVERS."""

    @property
    def synchronous(self) -> bool:
        """Whether none of its pairs is asynchronous, so that it has no journals."""
        return all(leg.mode is Mode.SYNC for leg in self.legs)

    @property
    def arrays(self) -> tuple[str, ...]:
        """All arrays that it has volumes on, in the order of its legs."""
        return tuple(dict.fromkeys(array for leg in self.legs for array in (leg.start, leg.end)))

    def local(self, here: str) -> str:
        """The array that is L in pairdisplay, seen from the array that is asked: that one, or where the first leg
        starts if the group has nothing there."""
        return here if here in self.arrays else self.legs[0].start


def groups_of(sections: Mapping[str, GroupSection]) -> Mapping[str, Group]:
    """What was read from a file without mistakes, as frozen values, by name."""
    return MappingProxyType({name: _group(name, section) for name, section in sections.items()})


def _group(name: str, section: GroupSection) -> Group:
    volumes = tuple(GroupVolume(each, MappingProxyType(dict(luns))) for each, luns in section.volumes.items())
    legs = tuple(Leg(leg.start, leg.end, leg.mode, _fence(leg)) for leg in section.legs)
    return Group(name, volumes, MappingProxyType(dict(section.journals or {})), legs, section.driver)


def _fence(leg: LegSection) -> str | None:
    return None if leg.mode is Mode.ASYNC else leg.fence or FENCE_LEVELS[0]


# -- what one part of the file says about another ----------------------------------------------------------------------


def group_of(mistake: Mistake) -> str | None:
    """The group that a mistake is in; None: in none, or in all."""
    key, name = (*mistake.path, None, None)[:2]
    return name if key == "groups" and isinstance(name, str) else None


def without(tree: Tree, names: Collection[str]) -> Tree:
    """The file without these groups."""
    assert isinstance(tree, dict), "it has groups"
    return tree | {"groups": {name: group for name, group in _mapping_in(tree, "groups").items() if name not in names}}


def broken_references(tree: Tree) -> list[Mistake]:
    """Arrays that are not under paths, LUNs that are missing at a leg's end, or that are there twice; what does not go
    with a leg's mode.

    Read from the tree, so that they are reported beside mistakes elsewhere in the file; what the schema refuses is
    passed over."""
    named = _mapping_in(tree, "groups")
    paths = _mapping_in(tree, "paths")
    mistakes: list[Mistake] = []
    users: dict[tuple[str, int], str] = {}
    for name, group in named.items():
        ends = _ends(group)
        for where, luns in _lun_maps(("groups", name), group):
            if len(luns) > SITES_MAX:
                continue
            mistakes += _unknown_or_beside(where, luns, paths, ends)
            mistakes += _twice(where, luns, users)
            mistakes += _missing(where, luns, ends) if len(where) > len(("groups", name, "journals")) else ()
        mistakes += _wrong_ends(("groups", name, "legs"), group, paths)
        mistakes += _of_another_mode(("groups", name), group)
    return mistakes


def _mapping_in(tree: Tree, key: str) -> dict[str, Tree]:
    found = tree.get(key) if isinstance(tree, dict) else None
    return found if isinstance(found, dict) else {}


def _lun_maps(where: KeyPath, group: Tree) -> Iterator[tuple[KeyPath, dict[str, Tree]]]:
    """Every mapping of arrays to LUNs in a group, with its place: of each volume, then of the journals."""
    volumes = _mapping_in(group, "volumes")
    for volume in volumes if len(volumes) <= GROUP_VOLUMES_MAX else ():
        if luns := _mapping_in(volumes, volume):
            yield (*where, "volumes", volume), luns
    if luns := _mapping_in(group, "journals"):
        yield (*where, "journals"), luns


def _legs(group: Tree) -> list[dict[str, Tree]]:
    """The legs of a group, as far as they are mappings and not too many."""
    legs = group.get("legs") if isinstance(group, dict) else None
    return [leg for leg in legs if isinstance(leg, dict)] if isinstance(legs, list) and len(legs) <= LEGS_MAX else []


def _ends(group: Tree) -> tuple[str, ...] | None:
    """The arrays at the ends of a group's legs; None if they cannot be told yet."""
    ends = [leg.get(key) for leg in _legs(group) for key in ("from", "to")]
    named = tuple(end for end in ends if isinstance(end, str) and _is_array(end))
    return named if named and len(named) == len(ends) else None


def _unknown_or_beside(
    where: KeyPath, luns: dict[str, Tree], paths: dict[str, Tree], ends: tuple[str, ...] | None
) -> Iterator[Mistake]:
    """Arrays that are not there, or that no leg leads to."""
    for array in filter(_is_array, luns):
        if array not in paths:
            yield Mistake((*where, array), array, NAME + hint(array, paths))
        elif ends is not None and array not in ends:
            yield Mistake((*where, array), array, f"an array at an end of a leg: {' or '.join(dict.fromkeys(ends))}")


def _twice(where: KeyPath, luns: dict[str, Tree], users: dict[tuple[str, int], str]) -> Iterator[Mistake]:
    """LUNs that another volume or journal has, in this group or in one before it: of one journal there is one order."""
    for array, value in luns.items():
        lun = _tried(values.lun, value)
        if lun is None:
            continue
        user = users.setdefault((array, lun), dotted(where))
        if user != dotted(where):
            yield Mistake((*where, array), lun, f"a LUN of {array} that nothing else has: it is that of {user}")


def _missing(where: KeyPath, luns: dict[str, Tree], ends: tuple[str, ...] | None) -> Iterator[Mistake]:
    """LUNs that a volume lacks at an end of a leg."""
    for end in dict.fromkeys(ends or ()):
        if end not in luns:
            yield Mistake((*where, end), MISSING, f"its LUN on {end}, which a leg leads from or to")


def _wrong_ends(where: KeyPath, group: Tree, paths: dict[str, Tree]) -> Iterator[Mistake]:
    """Legs to arrays that are not there, or that lead from an array to itself."""
    legs = group.get("legs") if isinstance(group, dict) else None
    if not isinstance(legs, list) or len(legs) > LEGS_MAX:
        return
    for number, leg in enumerate(legs):
        if not isinstance(leg, dict):
            continue
        for key in ("from", "to"):
            end = leg.get(key)
            if isinstance(end, str) and _is_array(end) and end not in paths:
                yield Mistake((*where, number, key), end, NAME + hint(end, paths))
        if isinstance(leg.get("to"), str) and leg.get("to") == leg.get("from") and leg["to"] in paths:
            yield Mistake((*where, number, "to"), leg["to"], "another array than the one it leads from")


def _of_another_mode(where: KeyPath, group: Tree) -> Iterator[Mistake]:
    """What only synchronous pairs have beside asynchronous ones, and the other way round."""
    legs = _legs(group)
    for number, leg in enumerate(legs):
        if leg.get("mode") == Mode.ASYNC and leg.get("fence") is not None:
            expected = "mode: sync beside it: asynchronous pairs have no fence level"
            yield Mistake((*where, "legs", number, "fence"), leg["fence"], expected)
    if isinstance(group, dict) and legs and all(leg.get("mode") == Mode.SYNC for leg in legs):
        if group.get("journals") is not None:
            yield Mistake((*where, "journals"), group["journals"], "no such key: synchronous pairs have no journals")
        if group.get("driver") == "host":
            yield Mistake((*where, "driver"), "host", "arrays: synchronous pairs are driven by them")


def _is_array(name: str) -> bool:
    """Whether the schema takes it for an array's name, or says itself what is wrong with it."""
    return _tried(values.array_name, name) is not None or _tried(values.serial, name) is not None


def _tried(parse: Callable[[object], Any], value: object) -> Any:
    """What `parse` makes of it; None if that refuses it."""
    try:
        return parse(value)
    except ValueError:
        return None
