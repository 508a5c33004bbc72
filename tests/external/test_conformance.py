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
from tests.lab.chain import start_chain
from tests.lab.conformance import NO_TARGET_PASSES, Result, Score

pytestmark = [pytest.mark.external, pytest.mark.timeout(300)]

TARGETS = 3
"""Arrays that share the tests between them, one test at a time each; many of them mostly sleep."""
EARLY_ASSERTION = "reconnect_succeeded,1"
TESTS_IN_DEBIAN = 230
VOLUME = {"size": "128MiB"}

CANNOT_APPLY = {
    f"ALL.WriteAtomic16.{test}": "WRITE ATOMIC (16) is not offered: a pwrite to a file is not atomic"
    for test in ("Simple", "BeyondEol", "ZeroBlocks", "WriteProtect", "DpoFua", "VPD")
} | {
    f"ALL.{test}.ZeroBlocks": "WSNZ=1: a WRITE SAME of 0 blocks is refused, which these tests check before they skip"
    for test in ("WriteSame10", "WriteSame16")
}
"""Tests that skip on every kind of LUN here, each with the reason."""

ON_READ_ONLY = {"ALL.ReadOnly.ReadOnlySBC"}
ON_REMOVABLE = {
    "ALL.StartStopUnit.Simple",
    *(
        f"ALL.PreventAllow.{test}"
        for test in ("Simple", "Eject", "ITNexusLoss", "Logout", "WarmReset", "ColdReset", "LUNReset", "2ITNexuses")
    ),
}
ON_LARGER_PHYSICAL_BLOCKS = {
    "ALL.CompareAndWrite.InvalidDataOutSize",
    "ALL.WriteSame10.InvalidDataOutSize",
    "ALL.WriteSame10.UnmapUnaligned",
    "ALL.WriteSame16.InvalidDataOutSize",
    "ALL.WriteSame16.UnmapUnaligned",
}
"""Tests that skip where the LUN is not of this kind; on one that is they must pass. (With larger physical blocks
ALL.GetLBAStatus.UnmapSingle asks for one LBA and wants the answer to be of another, so not all tests run there.)"""

OF_NO_BLOCK = (
    *("Inquiry", "iSCSI", "ModeSense6", "MultipathIO", "NoMedia", "PreventAllow", "Prin", "Prout", "ReadDefectData"),
    *("ReadOnly", "ReceiveCopyResults", "ReportSupportedOpcodes", "Reserve6", "Sanitize", "StartStopUnit"),
    "TestUnitReady",
    *("Read12", "Write12", "WriteVerify12", "Verify12"),
)
"""How the names of suites begin that blocks of another size change nothing for, or nothing that those of 10 and 16
bytes would not show as well."""
ELSEWHERE = ON_READ_ONLY | ON_REMOVABLE | ON_LARGER_PHYSICAL_BLOCKS
"""What does not apply to a disk as most are."""


def run(folder: Path, tests: Iterable[str], volume: Mapping[str, Any], hops: int = 0) -> dict[str, Result]:
    """Run ``tests`` on LUNs such as ``volume``, each reached by two portals; of an array that is so many hops away."""
    with ExitStack() as stack:
        targets = []
        for number in range(TARGETS):
            listen = ["127.0.0.1:0", "127.0.0.1:0"]
            array, *_ = start_chain(stack, folder / f"array{number}", hops, volume, listen=listen)
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


@pytest.fixture(autouse=True)
def _needs() -> None:
    parts.require(conformance.TOOL)


def test_a_disk(tmp_path: Path) -> None:
    tests = conformance.listed()
    assert len(tests) >= TESTS_IN_DEBIAN
    results = run(tmp_path, tests, VOLUME)
    assert_none_failed(results)
    assert skipped(results) == CANNOT_APPLY.keys() | ELSEWHERE


def test_a_disk_of_larger_blocks(tmp_path: Path) -> None:
    tests = [test for test in conformance.listed() if not test.removeprefix("ALL.").startswith(OF_NO_BLOCK)]
    results = run(tmp_path, tests, VOLUME | {"block_size": 4096})
    assert_none_failed(results)
    assert skipped(results) == (CANNOT_APPLY.keys() | ELSEWHERE) & set(tests)


@pytest.mark.parametrize("hops", [1, 2])
def test_a_virtual_volume(tmp_path: Path, hops: int) -> None:
    """Of an array one and two hops away (figures 3 and 22): the same as the volume itself."""
    results = run(tmp_path, conformance.listed(), VOLUME, hops)
    assert_none_failed(results)
    assert skipped(results) == CANNOT_APPLY.keys() | ELSEWHERE


@pytest.mark.parametrize(
    ("settings", "tests"),
    [
        pytest.param({"read_only": True}, ON_READ_ONLY, id="read-only"),
        pytest.param({"removable": True}, ON_REMOVABLE, id="removable"),
        pytest.param({"physical_block_size": 4096}, ON_LARGER_PHYSICAL_BLOCKS, id="512-in-4096"),
    ],
)
def test_what_applies_to_few_disks(tmp_path: Path, settings: dict[str, Any], tests: set[str]) -> None:
    results = run(tmp_path, tests, VOLUME | settings)
    assert {test: result.score for test, result in results.items()} == dict.fromkeys(tests, Score.PASSED)


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
