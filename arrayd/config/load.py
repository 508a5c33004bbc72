"""A configuration file to a `Config`, or all of its mistakes at once; or a part of one, which a command says."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from arrayd.config.document import Tree, UnreadableError, read_tree
from arrayd.config.mistakes import ConfigError, KeyPath, Mistake, line_of
from arrayd.config.references import broken_references
from arrayd.config.schema import ChapConfig, Config
from arrayd.config.section import Section
from arrayd.config.validation import mistake_of, validate


def load(path: Path) -> Config:
    """Reads the file, and the secrets' files it names. Raises ConfigError with every mistake in it.

    Reads from disk: on a running event loop call it in a thread.
    """
    try:
        tree, mistakes = read_tree(path)
    except UnreadableError as error:
        raise ConfigError.of(path, [error.mistake]) from None
    return of_tree(path, tree, mistakes)


def of_tree(path: Path, tree: Tree, refused: Sequence[Mistake] = ()) -> Config:
    """What the file says that reads as this tree, `refused` being the mistakes that were found when it was read. Raises
    ConfigError; reads the secrets' files."""
    mistakes = [*refused, *broken_references(tree)]
    config, more = validate(Config, tree, path.absolute().parent)
    mistakes += more
    if config is not None:
        mistakes += _shared_values(config)
    if config is None or mistakes:
        raise ConfigError.of(path, mistakes)
    return config


Part = TypeVar("Part", bound=Section)


def part(section: type[Part], path: KeyPath, value: object) -> Part:
    """A section that is in no file, but would be at `path`, such as ("volumes", "data"); `value` is of mappings, lists,
    strings and numbers. Raises ConfigError; its lines begin with the key."""
    try:
        return section.model_validate(value, context={"base": Path("/")})
    except ValidationError as error:
        mistakes = [mistake_of(Config, {**each, "loc": (*path, *each["loc"])}) for each in error.errors()]
        raise ConfigError(map(line_of, mistakes)) from None


def _shared_values(config: Config) -> list[Mistake]:
    """Values that have to differ from one another and do not."""
    mistakes: list[Mistake] = []
    files: dict[Path, str] = {}
    for name, volume in config.volumes.items():
        if volume.path is not None:
            other = files.setdefault(volume.path, name)
            if other != name:
                expected = f"a file of its own: volume {other} has this one"
                mistakes.append(Mistake(("volumes", name, "path"), volume.path, expected))
    for key, addresses in (("listen", config.iscsi.listen), ("advertise", config.iscsi.advertise)):
        for index, address in enumerate(addresses):
            if address in addresses[:index] and address.port:
                mistakes.append(Mistake(("iscsi", key, index), str(address), "each address once"))
    names = [initiator.name for initiator in config.iscsi.initiators or ()]
    for index, name in enumerate(names):
        if name in names[:index]:
            mistakes.append(Mistake(("iscsi", "initiators", index, "name"), name, "each initiator once"))
    return mistakes + _shared_names(config) + _shared_secrets(config)


def _shared_names(config: Config) -> list[Mistake]:
    """Names of arrays and initiators that are given twice, or are this array's."""
    mistakes: list[Mistake] = []
    commands, own = config.commands, config.array.name
    for key, expected, names in (
        ("initiators", "each initiator once", commands.initiators or ()),
        ("arrays", "each array once", commands.arrays or ()),
    ):
        mistakes += [
            Mistake(("commands", key, index), name, expected)
            for index, name in enumerate(names)
            if name in names[:index]
        ]
    others = (
        (("link", "arrays"), config.link.arrays if config.link else ()),
        (("commands", "devices"), commands.devices),
    )
    mistakes += [
        Mistake((*path, own), own, "another array: this is its own name") for path, names in others if own in names
    ]
    return mistakes


def _shared_secrets(config: Config) -> list[Mistake]:
    """RFC 7143, 12.1.3: one secret does not serve both directions, or an initiator could answer with our own answer."""
    sections: list[tuple[KeyPath, ChapConfig | None, ChapConfig | None]] = [
        (("iscsi", "initiators", index), initiator.chap, initiator.mutual_chap)
        for index, initiator in enumerate(config.iscsi.initiators or ())
    ]
    if config.iscsi.discovery_chap is not None:
        discovery = config.iscsi.discovery_chap
        sections.append((("iscsi", "discovery_chap"), discovery.chap, discovery.mutual_chap))
    theirs = {chap.secret_file for _, chap, _ in sections if chap is not None}
    return [
        Mistake(
            (*path, "mutual_chap", "secret_file"),
            mutual.secret_file.file,
            "a secret that no initiator has: the two directions of CHAP never share one",
        )
        for path, _, mutual in sections
        if mutual is not None and mutual.secret_file in theirs
    ]
