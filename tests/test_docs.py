"""What the documents say is so: links, paths, keys, examples, limits, commands, pages and formats, against the code."""

import importlib
import re
import sqlite3
import types
import typing
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from arrayd import __main__ as command_line
from arrayd.config.load import load
from arrayd.config.mistakes import ConfigError
from arrayd.config.schema import Config
from arrayd.config.section import Section
from arrayd.iscsi.chap import HASHES
from arrayd.iscsi.keys import KEYS, Value, format_value
from arrayd.iscsi.pdu import LoginStatus, Opcode
from arrayd.scsi import log_pages, mode, mode_commands, vpd
from arrayd.scsi.command import Reserved
from arrayd.scsi.designators import naa, t10_vendor
from arrayd.scsi.kinds import DISK, NO_DEVICE, STORAGE_ARRAY_CONTROLLER
from arrayd.scsi.opcodes import TABLES
from arrayd.scsi.task import Function
from arrayd.scsi.task_management import TARGET_FUNCTIONS, UNIT_FUNCTIONS
from arrayd.settings import port_identifier
from arrayd.tables import MIGRATIONS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(DOCS.glob("*.md"))
PAGE_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
NAMES = "architecture configuration connect-linux connect-qemu formats iscsi patent performance scsi"
DOCUMENTS = {f"docs/{name}.md" for name in NAMES.split()}

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
OUR_PATH = re.compile(r"(?:arrayd|config|docs|scripts|tests|\.ci)/[\w./-]*")
WRONG = "# wrong\n"
FIGURES = 41

Row = tuple[str, ...]


def read(name: str) -> str:
    return (ROOT / name).read_text()


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", text)


def blocks(text: str, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(text) if kind == language]


def anchors(text: str) -> set[str]:
    """What the headings of a page can be linked to by."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> list[str]:
    """Links into the project that lead nowhere."""
    broken = []
    for link in LINK.findall(prose(text)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(text if target == page else target.read_text())):
            broken.append(link)
    return broken


def unknown_paths(text: str) -> list[str]:
    """Paths of the project, in code between words, where nothing is."""
    named = [code for code in CODE.findall(prose(text)) if OUR_PATH.fullmatch(code)]
    return [path for path in named if not (ROOT / path).exists()]


def table(text: str, *heads: str) -> list[Row]:
    """The rows of all tables that begin with these heads, without the marks of code around a cell."""
    rows: list[Row] = []
    wanted, lines = False, text.splitlines()
    for number, line in enumerate(lines):
        cells = tuple(cell.strip() for cell in line.strip().strip("|").split("|"))
        if not line.startswith("|"):
            wanted = False
        elif not lines[number - 1].startswith("|"):
            wanted = cells[: len(heads)] == heads
        elif wanted and not set(line) <= set("|-: "):
            rows.append(tuple(re.sub(r"^`([^`]*)`$", r"\1", cell) for cell in cells))
    assert rows, f"no table {heads}"
    return rows


# -- links, paths, pictures --------------------------------------------------------------------------------------------


def test_every_document_is_there_and_in_the_readme() -> None:
    assert set(PAGE_NAMES) >= DOCUMENTS
    links = {link.partition("#")[0] for link in LINK.findall(read("README.md"))}
    assert links >= {f"docs/{page.name}" for page in DOCS.glob("*.md")} | {"CONTRIBUTING.md", "LICENSE"}


@pytest.mark.parametrize("name", PAGE_NAMES)
def test_links_and_paths_lead_somewhere(name: str) -> None:
    text = read(name)
    assert broken_links(ROOT / name, text) == []
    assert unknown_paths(text) == []


def test_the_checker_sees() -> None:
    page = DOCS / "scsi.md"
    text = "# Here\n[a](nowhere.md) [b](#there) [c](formats.md#nothing) [d](#here) [e](formats.md#identity)\n"
    assert broken_links(page, text) == ["nowhere.md", "#there", "formats.md#nothing"]
    assert unknown_paths("`arrayd/nothing.py` `arrayd/array.py` `tests/nothing/` `sd_notify`") == [
        "arrayd/nothing.py",
        "tests/nothing/",
    ]


def test_the_picture_needs_nothing_from_elsewhere() -> None:
    assert "(architecture.svg)" in read("docs/architecture.md")
    text = read("docs/architecture.svg")
    ElementTree.fromstring(text)
    assert "prefers-color-scheme: dark" in text
    assert re.findall(r"(?:href|url|@import)\W+(https?:[^\"')]*)", text) == []


# -- configuration -----------------------------------------------------------------------------------------------------


def inner_section(annotation: object) -> type[Section] | None:
    """The section in `X | None`, `tuple[X, ...]` or `dict[K, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    found = (inner_section(argument) for argument in typing.get_args(annotation))
    return next((section for section in found if section is not None), None)


def keys_of(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key below a section, as the document writes it."""
    for name, field in section.model_fields.items():
        path, inner = f"{prefix}{name}", inner_section(field.annotation)
        mapping = typing.get_origin(field.annotation) is dict
        if prefix or inner is None:
            yield path, field
        if inner is not None:
            place = {"volumes": ".NAME", "luns": ".N"}[name] if mapping else ""
            several = "[]" if any(typing.get_origin(each) is tuple for each in arms(field.annotation)) else ""
            yield from keys_of(inner, f"{path}{place}{several}.")


def arms(annotation: object) -> tuple[object, ...]:
    """`X` and `Y` of `X | Y`, and what is annotated of `Annotated[X, ...]`."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union, typing.Annotated):
        return tuple(arm for argument in typing.get_args(annotation) for arm in arms(argument))
    return (annotation,)


def documented_default(field: FieldInfo) -> str | None:
    """What the column of defaults must say, where that follows from the schema."""
    if isinstance(field.default, bool):
        return str(field.default).lower()
    return str(field.default) if isinstance(field.default, int) else None


def test_every_key_is_documented_with_its_default() -> None:
    rows = {row[0]: row for row in table(read("docs/configuration.md"), "key", "type", "default")}
    known = dict(keys_of(Config))
    assert len(known) > 25
    assert rows.keys() == known.keys()
    filled_in = {"state_dir", "iscsi.target"}
    for key, field in known.items():
        assert (rows[key][2] == "required") == (field.is_required() and key not in filled_in), key
        expected = documented_default(field)
        assert expected is None or rows[key][2] == expected, key
    assert anchors(read("docs/configuration.md")) >= set(Config.model_fields)


def load_text(folder: Path, text: str) -> Config:
    """Loads an example; a part of a file gets what it lacks, and the secrets that it names are there."""
    for number, name in enumerate(sorted(set(re.findall(r"secret_file: ([\w.]+)", text)))):
        (folder / name).write_text(f"a secret of its own {number}")
        (folder / name).chmod(0o600)
    file = folder / "array.yaml"
    file.write_text(text if "array:" in text else 'array: {name: example, serial: "1"}\n' + text)
    return load(file)


@pytest.mark.parametrize(
    ("name", "least"), [("README.md", 1), ("docs/configuration.md", 2), ("docs/connect-linux.md", 3)]
)
def test_examples_load(name: str, least: int, tmp_path: Path) -> None:
    examples = [example for example in blocks(read(name), "yaml") if not example.startswith(WRONG)]
    assert len(examples) >= least
    for example in examples:
        load_text(tmp_path, example)


def test_the_example_of_mistakes_is_answered_as_shown(tmp_path: Path) -> None:
    text = read("docs/configuration.md")
    ((example, shown),) = re.findall(
        rf"^```yaml\n({WRONG}.*?)^```.*?^```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL
    )
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, example)
    assert "".join(f"{line}\n" for line in caught.value.lines).replace(f"{tmp_path}/", "") == shown


def test_every_option_of_the_command_line_is_in_the_readme() -> None:
    options = {
        option for command in command_line.main.commands.values() for each in command.params for option in each.opts
    }
    flags = {option for option in options if option.startswith("--")}
    assert len(flags) >= 2
    assert {flag for flag in flags if f"`{flag}`" not in read("README.md")} == set()


# -- limits ------------------------------------------------------------------------------------------------------------

UNITS = {"": 1, "ms": 0.001, "s": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50}


def quantity(text: str) -> float:
    number, _, unit = text.partition(" ")
    return float(number.replace(",", "")) * UNITS[unit]


def test_every_limit_is_what_the_code_says() -> None:
    rows = table(read("docs/architecture.md"), "limit", "value", "where")
    assert len(rows) > 60
    told = {(where, name): quantity(value) for name, value, where, _ in rows}
    assert len(told) == len(rows)
    assert told == {(where, name): getattr(importlib.import_module(where), name) for where, name in told}


# -- SCSI and iSCSI ----------------------------------------------------------------------------------------------------

KINDS = {DISK: "disk", STORAGE_ARRAY_CONTROLLER: "controller", NO_DEVICE: "none"}
RESERVED = {Reserved.ALLOWED: "allowed", Reserved.READ: "exclusive", Reserved.WRITE: "write", Reserved.OWN_RULE: "own"}


def test_every_command_is_documented() -> None:
    known: dict[Row, list[str]] = {}
    for kind, commands in TABLES.items():
        for each in commands.commands:
            action = "" if each.action is None else f"{each.action:02X}"
            known.setdefault((f"{each.opcode:02X}", action, each.name, RESERVED[each.reserved]), []).append(KINDS[kind])
    assert len(known) > 60
    rows = table(read("docs/scsi.md"), "opcode", "SA", "command", "units", "other's reservation")
    assert len(rows) == len(known)
    assert {
        (code, action, name, reserved): units.split(", ") for code, action, name, units, reserved, _ in rows
    } == known


def test_every_page_is_documented() -> None:
    text = read("docs/scsi.md")
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    told = {
        heading: [int(row[0], 16) for row in table(sections[heading], "page", "name", "units")]
        for heading in ("Vital product data", "Mode pages", "Log pages")
    }
    modes = [mode.CACHING, mode.CONTROL, mode.INFORMATIONAL_EXCEPTIONS, mode_commands.ALL_PAGES]
    logs = [log_pages.SUPPORTED_PAGES, log_pages.LOGICAL_BLOCK_PROVISIONING]
    assert told == {"Vital product data": list(vpd.PAGES), "Mode pages": modes, "Log pages": logs}


def test_every_task_management_function_is_documented() -> None:
    functions = [Function(code).name.replace("_", " ") for code in sorted(UNIT_FUNCTIONS.keys() | TARGET_FUNCTIONS)]
    assert [row[0] for row in table(read("docs/scsi.md"), "function")] == functions


def test_every_key_of_iscsi_is_documented() -> None:
    def cell(value: Value | None) -> str:
        return "" if value is None else format_value(value)

    rows = [(name, section, offer, default) for name, section, _, offer, default in table(read("docs/iscsi.md"), "key")]
    assert rows == [(key.name, key.section, cell(key.offer), cell(key.default)) for key in KEYS.values()]


def test_pdus_statuses_and_algorithms_of_iscsi_are_documented() -> None:
    text = read("docs/iscsi.md")
    assert [int(row[0].rstrip("h"), 16) for row in table(text, "opcode", "PDU")] == sorted(Opcode)
    assert [int(row[0]) for row in table(text, "CHAP_A")] == list(HASHES)
    for row in table(text, "status", "when"):
        code, _, name = row[0].partition("h ")
        assert LoginStatus(int(code, 16)).name.replace("_", " ").lower() == name.lower()


# -- formats, figures --------------------------------------------------------------------------------------------------


def test_the_tables_on_disk_are_as_documented() -> None:
    connection = sqlite3.connect(":memory:")
    for statement in (statement for statements in MIGRATIONS for statement in statements):
        connection.execute(statement)
    names = [
        name
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
    ]
    columns = {(name, row[1], row[2]) for name in names for row in connection.execute(f"PRAGMA table_info({name})")}
    connection.close()
    rows = table(read("docs/formats.md"), "table", "column", "type")
    assert {(name, column, kind.partition(",")[0]) for name, column, kind, _ in rows} == columns
    assert f"Version {len(MIGRATIONS)}:" in read("docs/formats.md")


def test_the_example_of_an_identity_is_right() -> None:
    told = [row[2] for row in table(read("docs/formats.md"), "where", "what")]
    assert told[:4] == ["410001:data", naa("410001:data").hex(), t10_vendor("410001:data").decode(),
                        str(port_identifier("410001"))]  # fmt: skip
    assert f"wwn-0x{told[1]}" in read("docs/formats.md")


def test_every_figure_of_the_patent_has_a_row() -> None:
    rows = table(read("docs/patent.md"), "figure", "what it shows", "where it is")
    assert [int(row[0]) for row in rows] == list(range(1, FIGURES + 1))
    assert all(CODE.search(row[2]) or "not there yet: " in row[2] for row in rows)
