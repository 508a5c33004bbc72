"""arrayctl as who types it, and who scripts it, sees it: output, reasons, exit codes, completion; at real arrays."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from arrayd.commands.results import Result as Code
from arrayd.host import settings, show
from arrayd.host.cli import arrayctl
from tests.host.row import FAR_LUN, Row
from tests.lab.daemon import ArraydProcess, configuration, free_port

pytestmark = [pytest.mark.usefixtures("paths"), pytest.mark.slow]


def run(*arguments: str, input: str | None = None) -> Result:
    return CliRunner().invoke(arrayctl, arguments, input=input, prog_name="arrayctl")


def good(*arguments: str, input: str | None = None) -> str:
    result = run(*arguments, input=input)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def bad(*arguments: str, input: str | None = None) -> tuple[int, str]:
    """Exit code and reason, which is one line, behind our name."""
    result = run(*arguments, input=input)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("arrayctl: ")
    return result.exit_code, line.removeprefix("arrayctl: ")


# -- send --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("array", ["primary", "intermediate", "remote"])
def test_edited_data_is_printed_as_json(array: str) -> None:
    assert json.loads(good("send", array, "echo", "text=hello")) == {"array": array, "text": "hello"}


@pytest.mark.parametrize("options", [(), ("--keep-addresses",), ("--shortest",), ("--method", "addressed")])
@pytest.mark.parametrize("behind", [False, True])
def test_options_stand_before_the_verb_or_behind_it(options: tuple[str, ...], behind: bool) -> None:
    send = ("send", "remote", "echo", "text=x")
    assert json.loads(good(*(send + options if behind else options + send)))["array"] == "remote"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("text=hello", "hello"), ("text=", ""), ("text=a=b", "a=b"), ("text=NaN", "NaN"), ("text={", "{"),
        ('text="7"', "7"), ("text=hello world", "hello world"), ("text=ä", "ä"),
    ],
)  # fmt: skip
def test_a_value_that_is_no_json_is_text(given: str, meant: str) -> None:
    assert json.loads(good("send", "primary", "echo", given))["text"] == meant


def test_a_value_that_is_json_is_json() -> None:
    code, reason = bad("send", "primary", "echo", "text=7")
    assert code == Code.BAD_INPUT
    assert re.match("primary: text: .*string", reason)


def test_a_process_number_will_do() -> None:
    assert json.loads(good("send", "primary", "2", "text=x"))["text"] == "x"


def test_a_command_that_changes_something() -> None:
    assert json.loads(good("send", "remote", "volume-create", "name=made", "size=1048576"))["name"] == "made"
    assert bad("send", "remote", "volume-create", "name=made", "size=1048576")[0] == Code.CONFLICT
    good("send", "remote", "volume-delete", "name=made")
    assert bad("send", "remote", "volume-delete", "name=made")[0] == Code.NOT_FOUND


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["send", "remot", "echo"], Code.USAGE, r".*hosts.yaml has no array remot; did you mean remote\?"),
        (["send", "remote", "ecko"], Code.UNKNOWN_COMMAND, r"remote: there is no command ecko: did you mean echo\?"),
        (["send", "remote", "60000"], Code.UNKNOWN_COMMAND, "remote: .*60000"),
        (["send", "remote", "70000"], Code.USAGE, "a process number is 1 to 65535, not 70000"),
        (["send", "remote", "echo", "x=1"], Code.BAD_INPUT, "remote: x: "),
        (["send", "remote", "echo", "text"], Code.USAGE, r".*text: expected KEY=VALUE. Try: arrayctl send --help"),
        (["send", "remote", "echo", "text=1", "text=2"], Code.USAGE, ".*text is given twice"),
        (["send", "remote"], Code.USAGE, "Missing argument 'COMMAND'"),
        ([], Code.USAGE, "Missing command. Try: arrayctl --help"),
        (["sned"], Code.USAGE, "No such command 'sned'"),
        (["--metod", "x"], Code.USAGE, "No such option"),
        (["--timeout", "0", "status"], Code.USAGE, "Invalid value for '--timeout'"),
        (["--at", "remote", "send", "primary", "echo"], Code.USAGE, "remote cannot be asked"),
        (["--shortest", "--keep-addresses", "status"], Code.USAGE, ".*one at a time"),
        (["--shortest", "--method", "command-device", "status"], Code.USAGE, ".*no meaning for a command device"),
        (["--method", "command-device", "send", "remote", "echo"], Code.USAGE, "primary has no LUN that leads to"),
        (["--paths", "/nonexistent", "arrays"], Code.USAGE, "/nonexistent: .*expected a file that can be read"),
    ],
)
def test_a_reason_is_one_line_and_a_code(arguments: list[str], code: Code, reason: str) -> None:
    told, line = bad(*arguments)
    assert told == code
    assert re.match(reason, line), line


def test_every_result_but_ok_is_an_exit_code_of_128_or_more() -> None:
    assert all(show.exit_code(code) == code for code in Code if code is not Code.OK)
    assert show.exit_code(1) == show.exit_code(300) == Code.INTERNAL


def test_an_array_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text(f"paths: {{a: {{direct: 'iscsi://127.0.0.1:{free_port()}/iqn.2026-11.a:b/0'}}}}")
    code, reason = bad("--paths", str(file), "send", "a", "echo")
    assert code == Code.UNREACHABLE
    assert re.fullmatch(r"127\.0\.0\.1:\d+: Connection refused", reason)


def test_a_host_that_may_not_command_is_told_so(tmp_path: Path) -> None:
    config = configuration({"data": {"size": "1MiB"}})
    config["luns"]["9"] = {"command_device": {}}
    config["commands"] = {"initiators": ["iqn.2026-11.io.arrayd:somebody"]}
    with ArraydProcess(tmp_path / "array", config) as array:
        file = tmp_path / "hosts.yaml"
        file.write_text(f"paths: {{lab: {{direct: '{array.url(9)}'}}}}\ninitiator: iqn.2026-11.io.arrayd:other")
        for method in ("command-device", "addressed"):
            code, reason = bad("--paths", str(file), "--method", method, "send", "lab", "echo")
            assert code == Code.NOT_AUTHORISED
            assert reason.startswith("lab: ")
        file.write_text(f"paths: {{lab: {{direct: '{array.url(9)}'}}}}\ninitiator: iqn.2026-11.io.arrayd:somebody")
        assert json.loads(good("--paths", str(file), "send", "lab", "echo"))["array"] == "lab"


def test_a_fault_of_the_program_has_a_traceback_and_a_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr("arrayd.host.host.Host.send", fault)
    result = run("send", "remote", "echo")
    assert result.exit_code == Code.INTERNAL
    assert "Traceback" in result.stderr


def test_where_the_path_table_is_looked_for(tmp_path: Path, paths: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good("arrays")
    other = tmp_path / "other.yaml"
    other.write_text("paths: {a: {direct: /dev/sdz}}")
    assert good("--paths", str(other), "arrays").startswith("a\tdirect\t"), "what is said counts more than $…"
    monkeypatch.delenv(settings.VARIABLE)
    monkeypatch.setattr(settings, "PLACES", (tmp_path / "first.yaml", tmp_path / "second.yaml"))
    assert bad("arrays")[1].startswith("no path table: --paths or $ARRAYCTL_PATHS names it, or it is one of ")
    other.rename(tmp_path / "second.yaml")
    assert good("arrays").startswith("a\t")
    (tmp_path / "first.yaml").write_text(paths.read_text())
    assert good("arrays").startswith("intermediate\t")


# -- send-many ---------------------------------------------------------------------------------------------------------

MANY = """\
- {array: primary, command: echo, input: {text: one}}
- {array: remote, command: volume-delete, input: {name: none}}
- {array: remote, command: 2}
"""


@pytest.mark.parametrize(("options", "last"), [([], Code.NOT_EXECUTED), (["--go-on"], Code.OK)])
def test_several_commands_have_a_result_each(options: list[str], last: Code, tmp_path: Path) -> None:
    (tmp_path / "many.yaml").write_text(MANY)
    result = run("send-many", *options, str(tmp_path / "many.yaml"))
    assert result.exit_code == Code.NOT_FOUND
    rows = json.loads(result.stdout)
    assert [row["result"] for row in rows] == [Code.OK, Code.NOT_FOUND, last]
    assert rows[0]["edited"] == {"array": "primary", "text": "one"}
    assert result.stderr.startswith("arrayctl: remote: ")


def test_several_commands_may_come_by_standard_input() -> None:
    text = json.dumps([{"array": "remote", "command": "echo", "input": {"text": "x"}}])
    (row,) = json.loads(good("send-many", "-", input=text))
    assert row == {"array": "remote", "command": "echo", "result": 0, "edited": {"array": "remote", "text": "x"}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", r"-: \(file\): \(nothing\): expected a list of mappings"),
        ("[]", r"-: \(file\): \(a list\): expected a list of mappings .*, at least 1"),
        ("- {array: primary}", r"-: \[0\].command: missing: expected the name or the process number of a command"),
        ("- {array: a, command: b, inptu: {}}", r"-: \[0\].inptu: .*did you mean input\?"),
        ("- {array: primary, command: echo, input: 7}", r"-: \[0\].input: 7: expected a mapping"),
        ("- {array: nowhere, command: echo}", ".*has no array nowhere"),
        ("{", "-: line 1"),
    ],
)
def test_a_list_that_is_wrong(text: str, reason: str) -> None:
    code, line = bad("send-many", "-", input=text)
    assert code == Code.USAGE
    assert re.match(reason, line), line


# -- verbs for people --------------------------------------------------------------------------------------------------


def cells(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


def test_arrays_shows_the_path_table() -> None:
    rows = {row[0]: row[1:] for row in cells(good("arrays"))}
    assert rows["primary"][:2] == ["direct", "command-device"]
    assert rows["intermediate"][:2] == ["primary > intermediate", "command-device (LUN 10)"]
    assert rows["remote"][:2] == ["primary > intermediate > remote", "addressed"]


def test_status_asks_every_array() -> None:
    rows = cells(good("status"))
    assert {row[0]: row[1] for row in rows} == dict.fromkeys(("primary", "intermediate", "remote"), "normal")
    told = json.loads(good("status", "--json"))
    assert {each["serial"] for each in told} == {"430000", "430001", "430002"}
    assert json.loads(good("status", "remote", "--json"))["array"] == "remote"


def test_status_says_who_does_not_answer_and_asks_the_others(row: Row, tmp_path: Path) -> None:
    file = tmp_path / "hosts.yaml"
    gone = f"iscsi://127.0.0.1:{free_port()}/iqn.2026-11.a:b/0"
    file.write_text(f"paths: {{gone: {{direct: '{gone}'}}, primary: {{direct: '{row.url}'}}}}")
    result = run("--paths", str(file), "status")
    assert result.exit_code == Code.UNREACHABLE
    first, second = cells(result.stdout)
    assert first[:2] == ["gone", "unreachable"]
    assert "Connection refused" in first[-1]
    assert second[:2] == ["primary", "normal"]


def test_luns_shows_the_lun_map() -> None:
    assert ["10", "virtual", "-", "intermediate", "9", "file"] in cells(good("luns", "primary"))
    assert json.loads(good("luns", "remote", "--json"))[0]["volume"] == "data"


def test_events_shows_the_last_ones() -> None:
    everything = json.loads(good("events", "--after", "0", "--json"))
    assert [each["number"] for each in everything] == sorted(each["number"] for each in everything)
    assert everything[0]["text"] == "started"
    assert json.loads(good("events", "primary", "--limit", "1", "--json")) == everything[-1:]
    assert cells(good("events", "--limit", "1"))[0][0] == str(everything[-1]["number"])


def test_commands_lists_them_and_says_what_one_takes() -> None:
    assert ["2", "echo"] in [row[:2] for row in cells(good("commands"))]
    assert cells(good("commands", "remote", "volume-create"))[0][:3] == ["name", "string", "required"]
    assert json.loads(good("commands", "remote", "2", "--json"))["name"] == "echo"
    assert bad("commands", "remote", "ecko")[0] == Code.UNKNOWN_COMMAND


def test_find_fills_in_the_path_table(paths: Path) -> None:
    paths.write_text(f"# ours\n{paths.read_text()}")
    good("send", "primary", "command-device-add", "array=remote", f"lun={FAR_LUN}")
    try:
        assert ["remote", "primary", "11", "-", "fill in"] in cells(good("find"))
        assert ["remote", "primary", "11", "-", "filled in"] in cells(good("find", "--write"))
        assert paths.read_text().startswith("# ours\n")
        assert ["remote", "primary", "11", "11", "-"] in cells(good("find"))
        assert json.loads(good("--method", "command-device", "send", "remote", "echo"))["array"] == "remote"
    finally:
        good("send", "primary", "command-device-remove", "array=remote", f"lun={FAR_LUN}")
