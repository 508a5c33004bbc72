"""Where every part is required, a skip fails the run; elsewhere it is a skip."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

SECONDS_MAX = 50

SKIPS = {
    "call": "def test_it():\n    pytest.skip('no part')\n",
    "fixture": "@pytest.fixture\ndef part():\n    pytest.skip('no part')\n\ndef test_it(part):\n    pass\n",
    "mark": "@pytest.mark.skip(reason='no part')\ndef test_it():\n    pass\n",
    "module": "pytest.skip('no part', allow_module_level=True)\n",
}
EXPECTED = "@pytest.mark.may_skip('there is no such part for this LUN')\n" + SKIPS["call"]


def run_suite(folder: Path, sources: dict[str, str], require_all: bool) -> tuple[int, str]:
    """Runs a suite of these files beside this project's conftest.py, lab and settings; exit code and what it says."""
    project = Path(__file__).parent.parent
    (folder / "tests").mkdir()
    shutil.copy(project / "tests" / "conftest.py", folder / "tests")
    shutil.copytree(project / "tests" / "lab", folder / "tests" / "lab")
    shutil.copy(project / "pyproject.toml", folder)
    for name, source in sources.items():
        (folder / "tests" / f"test_{name}.py").write_text(f"import pytest\n\n{source}")
    environment = {**os.environ, "ARRAYD_REQUIRE_ALL": "1" if require_all else "", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--continue-on-collection-errors", str(folder)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_skip_fails_where_all_is_required_unless_its_reason_was_known_before(tmp_path: Path) -> None:
    code, said = run_suite(tmp_path, {**SKIPS, "expected": EXPECTED}, require_all=True)
    assert code == 1
    failed = re.findall(
        r"^(?:FAILED|ERROR) tests/test_(\w+)\.py.* no part \(a skip is a failure here:", said, re.MULTILINE
    )
    assert sorted(failed) == sorted(SKIPS)
    assert re.search(r"= 1 failed, 1 skipped, 3 errors in ", said)


def test_a_skip_is_a_skip_elsewhere(tmp_path: Path) -> None:
    code, said = run_suite(tmp_path, {**SKIPS, "expected": EXPECTED}, require_all=False)
    assert code == 0
    assert re.search(r"= 5 skipped in ", said)


def test_may_skip_needs_a_reason(tmp_path: Path) -> None:
    code, said = run_suite(tmp_path, {"it": "@pytest.mark.may_skip\n" + SKIPS["call"]}, require_all=False)
    assert code != 0
    assert "may_skip needs a reason" in said
