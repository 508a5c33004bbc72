"""libiscsi's conformance suite, all of it, over two paths: nothing fails, nothing hangs, every skip is accounted for.

A test that cannot apply to one kind of LUN must pass on another kind; what no kind here can be is in CANNOT_APPLY.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.lab import conformance, parts
from tests.lab.conformance import NO_TARGET_PASSES, PATIENCE_S, Result, Score
from tests.lab.daemon import ArraydProcess, configuration

pytestmark = [pytest.mark.external, pytest.mark.timeout(300)]

TARGETS = 2
"""Arrays that share the tests between them, one test at a time each; the machine has two cores."""
EARLY_ASSERTION = "reconnect_succeeded,1"
TESTS_IN_DEBIAN = 230
VOLUME = {"size": "128MiB"}

NOT_OFFERED_ATOMIC = "WRITE ATOMIC (16) is not offered: a pwrite to a file is not atomic"
CANNOT_APPLY = {
    f"ALL.WriteAtomic16.{test}": NOT_OFFERED_ATOMIC
    for test in ("Simple", "BeyondEol", "ZeroBlocks", "WriteProtect", "DpoFua", "VPD")
}
ON_REMOVABLE = {
    *(
        f"ALL.PreventAllow.{test}"
        for test in ("Simple", "Eject", "ITNexusLoss", "Logout", "WarmReset", "ColdReset", "LUNReset", "2ITNexuses")
    ),
    "ALL.StartStopUnit.Simple",
}
ON_SMALL_BLOCKS = {
    f"ALL.{test}"
    for test in (
        "CompareAndWrite.InvalidDataOutSize",
        "WriteSame10.InvalidDataOutSize",
        "WriteSame10.UnmapUnaligned",
        "WriteSame16.InvalidDataOutSize",
        "WriteSame16.UnmapUnaligned",
    )
}
"""They need logical blocks smaller than physical ones."""
ON_READ_ONLY = {"ALL.ReadOnly.ReadOnlySBC"}


def run(folder: Path, tests: Iterable[str], volume: Mapping[str, Any]) -> dict[str, Result]:
    """Run ``tests`` on LUNs such as ``volume``, each reached by two portals."""
    with ExitStack() as stack:
        targets = []
        for number in range(TARGETS):
            config = configuration({"data": volume}, listen=["127.0.0.1:0", "127.0.0.1:0"])
            array = stack.enter_context(ArraydProcess(folder / f"array{number}", config))
            targets.append([f"iscsi://{address}/{array.target}/0" for address in array.addresses])
        results = conformance.run_suite(tests, targets)
    print(conformance.summary(results))
    return results


def assert_none_failed(results: Mapping[str, Result]) -> None:
    """Nothing hangs, and nothing fails but what fails with every target, by that one assertion."""
    bad = [result for result in results.values() if result.score in (Score.FAILED, Score.HUNG)]
    defective = [result for result in bad if result.test in NO_TARGET_PASSES]
    assert bad == defective, "\n".join([conformance.summary(results), *map(str, bad)])
    for result in defective:
        assert re.findall(r"CU_ASSERT\w*\((\w+,\d+)\)", result.output) == [EARLY_ASSERTION], result


def skipped(results: Mapping[str, Result]) -> set[str]:
    return {test for test, result in results.items() if result.score is Score.SKIPPED}


def quick_tests() -> list[str]:
    return [test for test in conformance.listed() if test not in PATIENCE_S]


@pytest.fixture(autouse=True)
def _needs() -> None:
    parts.require(conformance.TOOL)


def test_a_disk(tmp_path: Path) -> None:
    tests = conformance.listed()
    assert len(tests) >= TESTS_IN_DEBIAN
    results = run(tmp_path, tests, VOLUME)
    assert_none_failed(results)
    assert skipped(results) == CANNOT_APPLY.keys() | ON_REMOVABLE | ON_READ_ONLY


def test_a_disk_of_4096_byte_blocks(tmp_path: Path) -> None:
    results = run(tmp_path, quick_tests(), VOLUME | {"block_size": 4096})
    assert_none_failed(results)
    assert skipped(results) == CANNOT_APPLY.keys() | ON_REMOVABLE | ON_READ_ONLY | ON_SMALL_BLOCKS


def test_a_removable_disk(tmp_path: Path) -> None:
    results = run(tmp_path, quick_tests(), VOLUME | {"removable": True})
    assert_none_failed(results)
    assert skipped(results) == CANNOT_APPLY.keys() | ON_READ_ONLY


def test_a_read_only_disk(tmp_path: Path) -> None:
    results = run(tmp_path, ON_READ_ONLY, VOLUME | {"read_only": True})
    assert_none_failed(results)
    assert skipped(results) == set()


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("asserts    9   9   9   0", Score.PASSED),
        ("asserts    9   9   8   1", Score.FAILED),
        ("[FAILED] sense\nasserts    9   9   9   0", Score.FAILED),
        ("", Score.FAILED),
        ("    [SKIPPED] UNMAP is not implemented.\nasserts    9   9   9   0", Score.SKIPPED),
        ("    [SKIPPED] REPORT_SUPPORTED_OPCODES is not implemented.\nasserts    9   9   9   0", Score.PASSED),
    ],
)
def test_the_score_is_honest(printed: str, expected: Score) -> None:
    assert conformance.score("ALL.Unmap.Simple", printed) is expected
