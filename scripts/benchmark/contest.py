"""One row: its subjects in turn, A B C, B C A, C A B, ..., until the intervals decide its claims."""

import itertools
import shutil
import statistics as middle
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from scripts.benchmark import backing, generator
from scripts.benchmark.backing import BackingError
from scripts.benchmark.generator import GeneratorError, Run
from scripts.benchmark.rows import TRANSFERS, Comparison, FileSystem, Metric, Row, Subject, TargetSetup
from scripts.benchmark.statistics import LOOKS, Estimate, Verdict, estimate
from scripts.benchmark.target_arrayd import ArraydTarget
from scripts.benchmark.target_chain import ChainTarget
from scripts.benchmark.target_pair import PairTarget
from scripts.benchmark.target_tgt import TgtError, TgtTarget
from tests.lab.daemon import DaemonError

Target = ArraydTarget | ChainTarget | PairTarget | TgtTarget
KINDS: dict[str, type[Target]] = {
    "arrayd": ArraydTarget,
    "chain": ChainTarget,
    "pair": PairTarget,
    "sync": PairTarget,
    "tgt": TgtTarget,
}
EXPECTED_ERRORS = (BackingError, DaemonError, GeneratorError, TgtError, OSError)
MANY_LUNS_BYTES = 2 << 20
"""Of each LUN where there are more than two: together they are no more than what one has elsewhere."""


@dataclass(frozen=True)
class Pace:
    """How much is measured: bytes of a volume, pairs after which is looked, and how long a run is."""

    volume_bytes: int
    looks: tuple[int, ...]
    seconds_factor: float


FULL = Pace(volume_bytes=512 << 20, looks=LOOKS, seconds_factor=1.0)
QUICK = Pace(volume_bytes=128 << 20, looks=(3,), seconds_factor=0.3)


class TargetPool:
    """The targets that run, each with a folder of its own; all end with the ``with`` statement."""

    def __init__(self, folders: dict[FileSystem, Path], pace: Pace) -> None:
        self._folders = folders
        self._pace = pace
        self._started = itertools.count()
        self._running: dict[TargetSetup, tuple[Target, ExitStack]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.keep_only(())

    def keep_only(self, setups: Collection[TargetSetup]) -> None:
        """Stop the targets with any other set-up and delete their volumes: nothing idle takes memory beside a run."""
        with ExitStack() as leaving:
            for setup in [setup for setup in self._running if setup not in setups]:
                leaving.push(self._running.pop(setup)[1])

    def target(self, setup: TargetSetup) -> Target:
        """The one target with this set-up, started if it does not run."""
        if setup not in self._running:
            folder = self._folders[setup.file_system] / f"{setup.program}-{next(self._started)}"
            size = self._pace.volume_bytes if setup.luns <= 2 else MANY_LUNS_BYTES
            with ExitStack() as starting:
                starting.callback(shutil.rmtree, folder, ignore_errors=True)
                target = KINDS[setup.program](setup, folder, size)
                starting.enter_context(target)
                self._running[setup] = target, starting.pop_all()
        return self._running[setup][0]


@dataclass
class Decision:
    """A comparison with what came of it."""

    comparison: Comparison
    peer: str
    """The fastest of those it was compared against, by the medians of their rates."""
    estimate: Estimate

    @property
    def verdict(self) -> Verdict:
        """On the comparison's claim."""
        return self.estimate.verdict(self.comparison.at_least)


@dataclass
class Outcome:
    """A row with its runs, by subject, in the order they were made."""

    row: Row
    runs: dict[str, list[Run]] = field(default_factory=dict)
    failure: str | None = None

    def decisions(self) -> list[Decision]:
        """Every comparison of the row, over the runs so far."""
        return [decide(comparison, self.runs) for comparison in self.row.comparisons]


def ratio(of: Run, against: Run, metric: Metric) -> float:
    """Above 1 when ``of`` is the better."""
    if metric is Metric.RATE:
        return of.iops / against.iops
    return against.p50_us / of.p50_us if metric is Metric.P50 else against.p99_us / of.p99_us


def decide(comparison: Comparison, runs: dict[str, list[Run]]) -> Decision:
    """The first subject against the fastest of the others."""
    peer = max(comparison.against, key=lambda label: middle.median(run.iops for run in runs[label]))
    pairs = zip(runs[comparison.of], runs[peer], strict=True)
    return Decision(comparison, peer, estimate([ratio(of, against, comparison.metric) for of, against in pairs]))


class Contest:
    """Measures rows, one after the other, on the targets of a pool."""

    def __init__(self, program: Path, pool: TargetPool, pace: Pace, tell: Callable[[str], None]) -> None:
        self._program = program
        self._pool = pool
        self._pace = pace
        self._tell = tell

    def measure(self, row: Row) -> Outcome:
        """Runs in turn until every claim is decided, or the last planned look has come."""
        outcome = Outcome(row, {subject.label: [] for subject in row.subjects})
        self._make_room(row)
        try:
            for subject in row.subjects:
                self._pool.target(subject.setup)
            for turn in itertools.count():
                self._one_turn(outcome, turn)
                if turn + 1 in self._pace.looks and self._is_over(outcome, turn + 1):
                    break
        except EXPECTED_ERRORS as error:  # the other rows go on
            outcome.failure = f"{type(error).__name__}: {error}"
        return outcome

    def _make_room(self, row: Row) -> None:
        """A target that does not end well is no fault of the next row."""
        try:
            self._pool.keep_only({subject.setup for subject in row.subjects})
        except EXPECTED_ERRORS as error:
            self._tell(f"before {row.name}: {error}")

    def _one_turn(self, outcome: Outcome, turn: int) -> None:
        subjects = rotated(outcome.row.subjects, turn)
        for subject in subjects:
            outcome.runs[subject.label].append(self._run(outcome.row, subject, seed=turn + 1))
        rates = ", ".join(f"{label} {runs[-1].iops:,.0f}/s" for label, runs in outcome.runs.items())
        self._tell(f"{outcome.row.name}: turn {turn + 1}: {rates}")

    def _run(self, row: Row, subject: Subject, seed: int) -> Run:
        target = self._pool.target(subject.setup)
        if isinstance(target, PairTarget):
            target.settle()
        if subject.setup.file_system is not FileSystem.TMPFS:
            cold = {target.files[lun] for lun in subject.cold_luns}
            backing.settle(target.files)
            backing.warm([file for file in target.files if file not in cold])
            backing.cool(cold)
        if isinstance(target, PairTarget) and subject.works[0].op in TRANSFERS:
            return target.transfer(subject.works[0].op, self._program)
        return generator.run(
            self._program,
            target.place_at(subject.hops) if isinstance(target, ChainTarget) else target.place,
            subject.works,
            seconds=row.seconds * self._pace.seconds_factor,
            warmup=row.warmup * self._pace.seconds_factor,
            seed=seed,
            digests=subject.digests,
        )

    def _is_over(self, outcome: Outcome, turns: int) -> bool:
        if turns == self._pace.looks[-1]:
            return True
        return all(decision.verdict is not Verdict.OPEN for decision in outcome.decisions())


def rotated(subjects: Sequence[Subject], turn: int) -> list[Subject]:
    """Everyone comes first as often as last: what a run leaves behind disturbs all alike."""
    start = turn % len(subjects)
    return [*subjects[start:], *subjects[:start]]
