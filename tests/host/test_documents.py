"""docs/arrayctl.md and docs/host-library.md are so: every option, verb, key and code; and the examples run."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from arrayd.commands.results import Result
from arrayd.config.mistakes import ConfigError
from arrayd.host import pair_verbs, pair_verify_verb, pair_watching, verb_table
from arrayd.host.cli import arrayctl
from arrayd.host.groups import GroupSection, LegSection
from arrayd.host.many import read_commands
from arrayd.host.paths import PathFile, PathTable, Row
from arrayd.host.verb_table import SHORT_HELP
from arrayd.host.way import DEFAULT, Way
from arrayd.replication.exit_codes import (
    ASYNCHRONOUS,
    INVALID_VOLUME,
    NOWAIT_CODES,
    STATUS_CODES,
    UNCONFORMED,
    UNMATCHED,
    EventWait,
    SyncWait,
    Takeover,
    Verify,
)
from arrayd.replication.statuses import Side, Status
from tests.host.row import Row as Arrays
from tests.test_docs import blocks, read, table

pytestmark = pytest.mark.slow

PAGE, LIBRARY = "docs/arrayctl.md", "docs/host-library.md"


def test_every_option_and_every_verb_is_documented() -> None:
    text = read(PAGE)
    options = {
        option
        for command in (arrayctl, *filter(None, map(verb_table.verb, SHORT_HELP)))
        for each in command.params
        for option in each.opts
        if option.startswith("--") and option != "--version"
    }
    assert {row[0] for row in table(text, "option", "meaning")} <= options
    assert {option for option in options if f"`{option}`" not in text} == set()
    assert {row[0] for row in table(text, "verb", "what it shows")} == set(SHORT_HELP)


def test_every_exit_code_is_documented() -> None:
    rows = table(read(PAGE), "code", "name", "why")
    assert [(int(row[0]), row[1]) for row in rows] == [(int(code), code.name) for code in Result if code]


def test_every_option_of_a_verb_of_pairs_is_in_its_section() -> None:
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", read(PAGE), re.MULTILINE | re.DOTALL))
    verbs = {verb.name: verb for verb in (*pair_verbs.ALL, *pair_watching.ALL, *pair_verify_verb.ALL)}
    assert set(sections) == set(verbs)
    of_all = {option for each in arrayctl.params for option in each.opts} | {"-g", "--group"}
    for name, verb in verbs.items():
        options = [option for each in verb.params for option in each.opts if option.startswith("-")]
        assert [each for each in options if each not in of_all and f"`{each}" not in sections[str(name)]] == []


def test_the_exit_codes_of_pairs_are_documented() -> None:
    text = read(PAGE)
    assert [int(row[0]) for row in table(text, "exit", "takeover")] == list(Takeover)
    synced = [row for row in table(text, "exit", "status") if len(row) == 3]
    codes = [*((str(int(each)), each.name) for each in SyncWait), (str(INVALID_VOLUME), "")]
    assert [row[:2] for row in synced] == codes
    checked = [row[0] for row in table(text, "exit", "status") if len(row) == 2]
    told = {code for each in checked for code in range(int(each.split(" ")[0]), int(each.split(" ")[-1]) + 1)}
    codes_of = {code + (ASYNCHRONOUS if side is not Side.NONE else 0) for (side, _), code in STATUS_CODES.items()}
    synchronous = {code for (_, status), code in STATUS_CODES.items() if status not in (Status.PFUL, Status.PFUS)}
    assert told == codes_of | synchronous | {UNCONFORMED, UNMATCHED}
    assert [row[:2] for row in table(text, "exit", "verify")][: len(Verify)] == [
        (str(int(each)), each.name.lower()) for each in Verify
    ]
    waited = [row[0] for row in table(text, "exit", "when")]
    assert waited == [*(str(int(each)) for each in EventWait), f"1 to {max(NOWAIT_CODES.values())}"]


def test_every_key_of_the_path_table_is_documented() -> None:
    keys = {*PathFile.model_fields, *(f"paths.NAME.{key}" for key in Row.model_fields)}
    keys |= {f"groups.NAME.{key}" for key in GroupSection.model_fields}
    keys |= {f"groups.NAME.legs[].{field.alias or name}" for name, field in LegSection.model_fields.items()}
    assert {row[0] for row in table(read(PAGE), "key", "what it says")} == keys


def test_every_field_of_a_way_is_documented() -> None:
    rows = table(read(LIBRARY), "field", "meaning", "default")
    assert {row[0]: row[2] for row in rows} == {name: str(getattr(DEFAULT, name)) for name in Way.__dataclass_fields__}


@pytest.mark.parametrize("name", [PAGE, LIBRARY])
def test_the_examples_of_yaml_load(name: str, tmp_path: Path) -> None:
    for number, example in enumerate(blocks(read(name), "yaml")):
        file = tmp_path / f"{number}.yaml"
        file.write_text(example)
        if example.startswith("-"):
            assert read_commands(file)
        else:
            assert len(PathTable.load(file).rows) in (2, 3)


def test_the_mistakes_of_groups_are_said_as_shown(tmp_path: Path) -> None:
    (example,) = (block for block in blocks(read(PAGE), "yaml") if "groups:" in block)
    file = tmp_path / "hosts.yaml"
    file.write_text(
        example.replace("mode: async", "mode: sync").replace("primary: 1, remote: 1", "primary: 1, remot: 1")
    )
    with pytest.raises(ConfigError) as caught:
        PathTable.load(file)
    said = [line.removeprefix(f"{tmp_path}/") for line in caught.value.lines]
    (shown,) = (block.splitlines() for block in blocks(read(PAGE), "text") if "groups." in block)
    assert len(shown) == 2
    assert set(shown) <= set(said)


@pytest.mark.parametrize("example", blocks(read(LIBRARY), "python"))
def test_the_examples_of_python_print_what_they_say(example: str, row: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    row.table()
    monkeypatch.chdir(row.folder)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example, LIBRARY, "exec"), {})
    assert printed.getvalue().splitlines() == re.findall(r"^ *# (.*)$", example, re.MULTILINE)
