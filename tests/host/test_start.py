"""What arrayctl imports before it does something: scripts call it in loops, and importing is most of its time.

Names, not times: who imports one of these for the sake of a type has every call of every script pay for it.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from arrayd.host.cli import arrayctl
from arrayd.host.verb_table import SHORT_HELP, verb

THE_DAEMONS = {
    "arrayd.buffers",
    "arrayd.config.load",
    "arrayd.config.schema",
    "arrayd.log",
    "asyncio",
    "sqlite3",
    "ssl",
}
NOBODYS = {"logging", "rich", "structlog"}
FOR_VERBS = {"arrayd.host.host", "arrayd.host.paths", "pydantic", "yaml", "importlib.metadata"}
PAIRS = {"arrayd.host.pair_status", "arrayd.host.pair_verbs", "arrayd.host.pair_watching"}
TABLE = "paths: {a: {direct: /dev/sdz}}\n"


def loaded(*arguments: str) -> set[str]:
    """The modules of a process in which arrayctl has carried out `arguments`, and ended well."""
    program = (
        "import sys; from arrayd.host.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as ended: print('\\n', ended.code, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    code, *modules = done.stdout.splitlines()[-1].split()
    assert code == "0", done.stderr
    return set(modules)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_imports_no_verb(arguments: list[str]) -> None:
    assert loaded(*arguments) & (THE_DAEMONS | NOBODYS | FOR_VERBS | PAIRS | {"arrayd.host.verbs"}) == set()


@pytest.mark.slow
def test_a_verb_imports_no_other_and_nothing_of_the_daemon(tmp_path: Path) -> None:
    table = tmp_path / "hosts.yaml"
    table.write_text(TABLE)
    modules = loaded("--paths", str(table), "arrays")
    assert {"arrayd.host.verbs", "arrayd.host.paths"} <= modules
    assert modules & (THE_DAEMONS | NOBODYS | PAIRS | {"arrayd.host.sending_verbs"}) == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paircreate", "pairdisplay", "send", "send-many", "status"])
def test_nor_do_other_verbs_import_what_is_the_daemons(name: str) -> None:
    modules = loaded(name, "--help")
    assert "arrayd.host.settings" in modules
    assert modules & (THE_DAEMONS | NOBODYS) == set()


@pytest.mark.parametrize("name", SHORT_HELP)
def test_every_verb_is_where_the_table_says(name: str) -> None:
    found = verb(name)
    assert found is not None
    assert found.name == name


def test_every_verb_is_in_the_table() -> None:
    from arrayd.host import pair_verbs, pair_verify_verb, pair_watching, sending_verbs, verbs

    files = (verbs, sending_verbs, pair_verbs, pair_watching, pair_verify_verb)
    assert {each.name for file in files for each in file.ALL} == set(SHORT_HELP)
    assert verb("no-such-verb") is None
    assert arrayctl.commands == {}
