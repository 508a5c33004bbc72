"""A CHAP secret opens the array, and is shown nowhere: not in output, errors, faults, representations or logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from arrayd.commands.results import Result
from arrayd.host import PathTable
from arrayd.host.cli import arrayctl
from tests.lab.daemon import ArraydProcess, configuration

pytestmark = pytest.mark.slow

SECRET = "correct horse battery"
WRONG = "incorrect horse battery"
HOST = "iqn.1993-08.org.debian:01:host1"


@pytest.fixture(scope="module")
def array(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArraydProcess]:
    chap = {"user": "host1", "secret_file": "chap.secret"}
    config = configuration({"data": {"size": "1MiB"}}, initiators=[{"name": HOST, "chap": chap}])
    config["luns"]["9"] = {"command_device": {}}
    with ArraydProcess(tmp_path_factory.mktemp("guarded"), config, {"chap.secret": SECRET}) as process:
        yield process


def table(folder: Path, array: ArraydProcess, secret: str, in_file: bool) -> Path:
    user = "host1" if in_file else f"host1%{secret}"
    row = {"direct": array.url(9).replace("iscsi://", f"iscsi://{user}@")}
    if in_file:
        (folder / "secret").write_text(secret)
        (folder / "secret").chmod(0o600)
        row["secret_file"] = "secret"
    file = folder / "hosts.yaml"
    file.write_text(json.dumps({"paths": {"lab": row}, "initiator": HOST}))
    return file


@pytest.mark.parametrize("in_file", [True, False])
@pytest.mark.parametrize("verb", ["arrays", "status", "find", "send lab echo text=x", "send lab volume-delete name=x"])
def test_a_secret_opens_the_array_and_is_not_shown(
    verb: str, in_file: bool, array: ArraydProcess, tmp_path: Path
) -> None:
    file = table(tmp_path, array, SECRET, in_file)
    for more in ([], ["--json"]):
        result = CliRunner().invoke(arrayctl, ["--paths", str(file), *more, *verb.split()])
        assert result.exit_code == (Result.NOT_FOUND if "delete" in verb else 0)
        assert not any(word in result.output for word in SECRET.split())
    assert SECRET not in repr(PathTable.load(file).rows)
    assert SECRET not in array.log


@pytest.mark.parametrize("in_file", [True, False])
def test_a_wrong_secret_is_not_shown_either(in_file: bool, array: ArraydProcess, tmp_path: Path) -> None:
    file = table(tmp_path, array, WRONG, in_file)
    result = CliRunner().invoke(arrayctl, ["--paths", str(file), "send", "lab", "echo"])
    assert result.exit_code == Result.UNREACHABLE
    assert "authentication failure" in result.stderr
    assert not any(word in result.output for word in WRONG.split())


def test_a_fault_does_not_show_it(array: ArraydProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr("arrayd.host.login.response", fault)
    result = CliRunner().invoke(arrayctl, ["--paths", str(table(tmp_path, array, SECRET, False)), "send", "lab", "2"])
    assert result.exit_code == Result.INTERNAL
    assert "ZeroDivisionError" in result.stderr
    assert not any(word in result.output for word in SECRET.split())
