"""libiscsi's test suite (iscsi-test-cu), run one process a test and scored for what each test really did.

The suite's own summary counts a test that skips itself as passed, and a target that stops answering stops the suite.
Here a test is FAILED when one of its assertions did, or a helper of its printed FAILED, or it ended without its
summary; HUNG when it did not end in time; SKIPPED when it skipped anything; and PASSED only otherwise. What is known of
single tests of the suite's version 1.19 stands in the three tables below.
"""

import queue
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

TOOL = "iscsi-test-cu"
FAMILY = "ALL"
NAME_PARTS = 3
TEST_TIMEOUT_S = 60.0
"""The longest takes 17 s, on a machine that does nothing else."""
LIST_TIMEOUT_S = 20.0

ASSERTIONS = re.compile(r"^\s*asserts\s+\d+\s+\d+\s+\d+\s+(?P<failed>\d+)", re.MULTILINE)
"""The row of CUnit's summary: total, ran, passed, failed."""

ON_FRESH_LUN = frozenset({"ALL.MultipathIO.CompareAndWrite"})
"""Tests that count on zeros where they have written none, and so run first: that one zeroes 256 blocks and uses 257."""

ASSERTIONS_DECIDE = {
    "ALL.iSCSIdatasn.iSCSIDataSnInvalid": "asserts that four broken writes are refused, by a helper that calls each "
    "refusal FAILED",
}
"""Tests that print FAILED when the target is right: of their output only the assertions count."""

NO_TARGET_PASSES = {
    "ALL.iSCSITMF.LUNResetSimpleAsync": "asserts that the answer to its reset has come before it reads from the socket",
}
"""Tests whose own mistake fails them with every target."""

CAPABILITY_NOTICE = "REPORT_SUPPORTED_OPCODES"
"""Nearly every test asks whether the target knows this command first; only where it is the subject is this a skip."""
CAPABILITY_SUITE = "ReportSupportedOpcodes"


class Score(StrEnum):
    """What a test really did."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    HUNG = "hung"


@dataclass(frozen=True)
class Result:
    """One test of the suite: its score and everything it printed."""

    test: str
    score: Score
    output: str

    def __str__(self) -> str:
        lines = [line for line in self.output.splitlines() if "[SKIPPED]" in line or "FAILED" in line or "[" in line]
        return "\n    ".join([f"{self.score} {self.test}", *lines])


def listed() -> list[str]:
    """The names, FAMILY.SUITE.TEST, of every test of the suite; the family ALL has each once."""
    done = subprocess.run([TOOL, "--list"], capture_output=True, text=True, timeout=LIST_TIMEOUT_S, check=True)
    names = done.stdout.split()
    return [name for name in names if name.startswith(f"{FAMILY}.") and name.count(".") == NAME_PARTS - 1]


def score(test: str, output: str) -> Score:
    """The score of a test that ended by itself, from what it printed."""
    summary = ASSERTIONS.search(output)
    if summary is None or int(summary["failed"]) or ("FAILED" in output and test not in ASSERTIONS_DECIDE):
        return Score.FAILED
    for line in output.splitlines():
        if "[SKIPPED]" in line and (CAPABILITY_NOTICE not in line or CAPABILITY_SUITE in test):
            return Score.SKIPPED
    return Score.PASSED


def run_test(test: str, urls: Sequence[str]) -> Result:
    """Run one test against the LUN that all ``urls`` lead to; what is on that LUN is lost."""
    command = [TOOL, "--dataloss", "--allow-sanitize", "--normal", f"--test={test}", *urls]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TEST_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as late:
        return Result(test, Score.HUNG, (late.stdout or b"").decode(errors="replace"))
    return Result(test, score(test, done.stdout), done.stdout)


def run_suite(tests: Iterable[str], targets: Sequence[Sequence[str]]) -> dict[str, Result]:
    """Run ``tests`` over ``targets``, each the URLs of one LUN of a target of its own, one test at a time on each.

    Tests reset targets and take reservations, so two never share a target at once.
    """
    idle: queue.SimpleQueue[Sequence[str]] = queue.SimpleQueue()
    for urls in targets:
        idle.put(urls)

    def run(test: str) -> Result:
        urls = idle.get()
        try:
            return run_test(test, urls)
        finally:
            idle.put(urls)

    with ThreadPoolExecutor(len(targets)) as pool:
        in_order = sorted(tests, key=lambda test: test not in ON_FRESH_LUN)
        return {result.test: result for result in pool.map(run, in_order)}


def summary(results: Mapping[str, Result]) -> str:
    """One line of counts, as ``230 run: 230 passed, 0 failed, 0 skipped, 0 hung``."""
    counts = Counter(result.score for result in results.values())
    return f"{len(results)} run: " + ", ".join(f"{counts[kind]} {kind}" for kind in Score)
