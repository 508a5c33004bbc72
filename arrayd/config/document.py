"""YAML to a tree of dict, list, str, int, float, bool and None, bounded, and without the surprises of YAML 1.1.

YAML 1.1 (https://yaml.org/type/) reads `10:30` as 630, `010` as 8, `on` as true and `2026-11-01` as a date. A user who
writes one of these means something else, so such plain scalars are refused with a hint to quote them. Keys are
always strings here: `0:` and `"0":` are the same key.
"""

import os
import re
import stat
from pathlib import Path

import yaml

from arrayd.config.mistakes import KeyPath, Mistake

MAX_FILE_BYTES = 1 << 20
MAX_DEPTH = 32
"""Mappings and lists inside one another."""
MAX_NODES = 100_000
"""Values in the file once every alias is expanded: a bomb of aliases ends here."""

_TAG = "tag:yaml.org,2002:"
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_FRACTION = re.compile(r"-?(0|[1-9][0-9]{0,14})\.[0-9]{1,15}")
_BOOLEANS = {"true": True, "True": True, "false": False, "False": False}


class Refused:
    """Stands in the tree for a value that was refused already, so that nobody complains twice."""


REFUSED = Refused()

Tree = dict[str, "Tree"] | list["Tree"] | str | int | float | bool | Refused | None


class UnreadableError(Exception):
    """The file as a whole cannot be read; carries the mistake."""

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(mistake.expected)
        self.mistake = mistake


class _BoundedLoader(yaml.SafeLoader):
    """SafeLoader that gives up on deep nesting before Python's stack does."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """As SafeLoader's, counting how deep it is."""
        if self.depth > MAX_DEPTH:
            raise UnreadableError(Mistake((), "deeper", f"mappings and lists nested at most {MAX_DEPTH} deep"))
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def read_tree(file: Path) -> tuple[Tree, list[Mistake]]:
    """The file's tree, and what was refused in it (`REFUSED` stands in its place). Raises UnreadableError."""
    return parse_tree(_read(file))


def parse_tree(text: str) -> tuple[Tree, list[Mistake]]:
    """The tree of one YAML document, and what was refused in it. Raises UnreadableError."""
    walk = _Walk()
    try:
        loader = _BoundedLoader(text)
        root = loader.get_single_node()
        return (None if root is None else walk.value(root, ())), walk.mistakes
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else "(file)"
        problem = error.problem or "one document"
        raise UnreadableError(Mistake((where,), "not YAML", f"YAML: {_one_line(problem)}")) from None
    except yaml.reader.ReaderError as error:
        where = f"character {error.position}"
        raise UnreadableError(Mistake((where,), "not text", "no control characters in the file")) from None
    except RecursionError:
        raise UnreadableError(Mistake((), "deeper", f"mappings and lists nested at most {MAX_DEPTH} deep")) from None


def read_at_once(file: Path, count: int) -> tuple[int, bytes]:
    """The mode of a file, and its first `count` bytes at most: none of what is no regular file, since to read that may
    wait for somebody. Raises OSError."""
    with open(file, "rb", opener=_open_at_once) as stream:
        mode = os.fstat(stream.fileno()).st_mode
        return mode, stream.read(count) if stat.S_ISREG(mode) else b""


def _open_at_once(file: str, flags: int) -> int:
    """An opener for `open` that does not wait for the other end of a pipe."""
    return os.open(file, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _read(file: Path) -> str:
    try:
        mode, data = read_at_once(file, MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UnreadableError(Mistake((), error.strerror or "unreadable", "a file that can be read")) from None
    if not stat.S_ISREG(mode):
        raise UnreadableError(Mistake((), "not a regular file", "a file that can be read"))
    if len(data) > MAX_FILE_BYTES:
        raise UnreadableError(Mistake((), "larger", f"at most {MAX_FILE_BYTES} bytes"))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableError(Mistake((f"byte {error.start}",), "not UTF-8", "text in UTF-8")) from None


def _one_line(text: str) -> str:
    return " ".join(text.split())


class _Walk:
    """Goes over the node graph once, aliases expanded, and collects what it refuses."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        self.nodes = 0

    def value(self, node: yaml.Node, path: KeyPath) -> Tree:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise UnreadableError(Mistake((), "more", f"at most {MAX_NODES} values, aliases expanded"))
        if len(path) > MAX_DEPTH:
            raise UnreadableError(Mistake((), "deeper", f"mappings and lists nested at most {MAX_DEPTH} deep"))
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        return self.refuse(path, node.tag, "a plain mapping or list, without a tag")

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> Tree:
        tree: dict[str, Tree] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.refuse(path, "(a key that is a list or a mapping)", "keys that are words or numbers")
                continue
            if key_node.tag == _TAG + "merge":
                self.refuse((*path, key_node.value), "(merged)", "every key written out: merge keys are not read")
                continue
            if self.scalar(key_node, (*path, key_node.value)) is REFUSED:
                continue
            if key_node.value in tree:
                self.refuse((*path, key_node.value), "(given twice)", "each key once")
                continue
            tree[key_node.value] = self.value(value_node, (*path, key_node.value))
        return tree

    def scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Tree:
        text: str = node.value
        if node.tag == _TAG + "str":
            return text
        if node.tag == _TAG + "int" and _DECIMAL.fullmatch(text):
            return int(text)
        if node.tag == _TAG + "float" and _FRACTION.fullmatch(text):
            return float(text)
        if node.tag == _TAG + "bool" and text in _BOOLEANS:
            return _BOOLEANS[text]
        if node.tag == _TAG + "null":
            return None
        meaning = {
            "int": "another number",
            "float": "a fraction",
            "bool": "a truth value",
            "timestamp": "a date",
        }.get(node.tag.removeprefix(_TAG))
        if meaning is None:
            return self.refuse(path, text, f"a value without the tag {_one_line(node.tag)[:40]}")
        truth = ", or true or false" if meaning == "a truth value" else ""
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        return self.refuse(path, text, f'quotes, "{quoted}"{truth}: YAML 1.1 turns it into {meaning}')

    def refuse(self, path: KeyPath, value: object, expected: str) -> Refused:
        self.mistakes.append(Mistake(path, value, expected))
        return REFUSED
