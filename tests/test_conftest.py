"""Where every part is required, a skip fails the run; elsewhere it is a skip."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS_MAX = 50

SKIPS = {
    "call": "def test_it():\n    pytest.skip('no part')\n",
    "fixture": "@pytest.fixture\ndef part():\n    pytest.skip('no part')\n\ndef test_it(part):\n    pass\n",
    "mark": "@pytest.mark.skip(reason='no part')\ndef test_it():\n    pass\n",
    "module": "pytest.skip('no part', allow_module_level=True)\n",
}


def run_suite(folder: Path, source: str, require_all: bool) -> subprocess.CompletedProcess[str]:
    """Runs a suite of one file beside this project's conftest.py and settings."""
    project = Path(__file__).parent.parent
    (folder / "tests").mkdir()
    shutil.copy(project / "tests" / "conftest.py", folder / "tests")
    shutil.copy(project / "pyproject.toml", folder)
    (folder / "tests" / "test_it.py").write_text(f"import pytest\n\n{source}")
    environment = {**os.environ, "ARRAYD_REQUIRE_ALL": "1" if require_all else ""}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(folder)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


@pytest.mark.parametrize("source", SKIPS.values(), ids=SKIPS)
def test_a_skip_fails_where_all_is_required(tmp_path: Path, source: str) -> None:
    done = run_suite(tmp_path, source, require_all=True)
    assert done.returncode != 0
    assert "no part (a skip is a failure here: every part is required)" in done.stdout


def test_a_skip_is_a_skip_elsewhere(tmp_path: Path) -> None:
    done = run_suite(tmp_path, SKIPS["call"], require_all=False)
    assert done.returncode == 0
    assert "1 skipped" in done.stdout


def test_a_skip_with_a_reason_known_before_may_be(tmp_path: Path) -> None:
    source = "@pytest.mark.may_skip('there is no such part for this LUN')\n" + SKIPS["call"]
    done = run_suite(tmp_path, source, require_all=True)
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout


def test_may_skip_needs_a_reason(tmp_path: Path) -> None:
    done = run_suite(tmp_path, "@pytest.mark.may_skip\n" + SKIPS["call"], require_all=False)
    assert done.returncode != 0
    assert "may_skip needs a reason" in done.stdout + done.stderr
