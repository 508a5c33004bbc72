"""The benchmark: how it decides, which rows it has, what it prints."""

import itertools
import json
import random
import statistics
from dataclasses import replace
from fractions import Fraction
from math import comb, exp
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.benchmark import backing, contest, machine, report, rows, transfers
from scripts.benchmark.contest import Outcome
from scripts.benchmark.generator import Run
from scripts.benchmark.rows import ARRAYD, MIB, TGT, TGT_T1, Comparison, Metric, Work
from scripts.benchmark.statistics import (
    CONFIDENCE_A_LOOK,
    ERROR,
    LOOKS,
    Estimate,
    Verdict,
    estimate,
    rank_of_bound,
)
from tests.lab.daemon import DaemonError

A_RUN = Run(
    seconds=1.0,
    commands=1000,
    iops=1000.0,
    mb_per_s=4.096,
    p50_us=10.0,
    p99_us=100.0,
    p999_us=200.0,
    max_us=300.0,
    target_us_a_command=8.0,
    target_share=0.5,
    client_share=0.3,
    others_share=0.0,
)
Ratios = st.lists(st.floats(0.01, 100), min_size=1, max_size=40)

# --------------------------------------------------------------------------------------------------------- statistics


@pytest.mark.parametrize(("count", "rank"), [(5, None), (6, 1), (8, 1), (9, 2), (12, 3), (20, 6), (30, 10)])
def test_ranks_of_the_sign_test_are_those_of_the_published_tables(count: int, rank: int | None) -> None:
    assert rank_of_bound(count, 0.95) == rank


@given(st.integers(1, 60), st.sampled_from([0.9, 0.95, 0.9875, 0.99]))
def test_rank_is_the_largest_that_covers_enough(count: int, confidence: float) -> None:
    def covers(rank: int) -> bool:
        outside = 2 * sum(Fraction(comb(count, index), 2**count) for index in range(rank))
        return outside <= 1 - Fraction(confidence) + Fraction(1, 10**12)

    rank = rank_of_bound(count, confidence)
    if rank is None:
        assert not covers(1)
    else:
        assert 1 <= rank <= (count + 1) // 2
        assert covers(rank)
        assert rank == count // 2 or not covers(rank + 1)


@given(Ratios)
def test_interval_holds_the_median_and_is_made_of_the_ratios(ratios: list[float]) -> None:
    found = estimate(ratios)
    assert found.count == len(ratios)
    assert found.median == statistics.median(ratios)
    if found.low is not None and found.high is not None:
        assert found.low <= found.median <= found.high
        assert {found.low, found.high} <= set(ratios)


@given(Ratios, st.randoms())
def test_order_of_the_ratios_does_not_matter(ratios: list[float], source: random.Random) -> None:
    shuffled = list(ratios)
    source.shuffle(shuffled)
    assert estimate(shuffled) == estimate(ratios)


def test_every_look_can_decide() -> None:
    assert all(rank_of_bound(count, CONFIDENCE_A_LOOK) for count in LOOKS)


def test_deciding_at_the_planned_looks_is_wrong_no_more_often_than_it_says() -> None:
    """The hardest case: the claim is exactly the true median, so every decision is a matter of luck."""
    source = random.Random(7)
    contests, wrong = 4000, 0
    for _ in range(contests):
        ratios: list[float] = []
        for look in LOOKS:
            while len(ratios) < look:
                ratios.append(2.5 * exp(source.gauss(0, 0.5)))
            verdict = estimate(ratios).verdict(2.5)
            if verdict is not Verdict.OPEN:
                wrong += 1
                break
    assert wrong / contests <= ERROR


@pytest.mark.parametrize(
    ("low", "high", "claim", "verdict"),
    [
        (2.5, 3.0, 2.5, Verdict.SHOWN),
        (2.4, 3.0, 2.5, Verdict.OPEN),
        (2.0, 2.5, 2.5, Verdict.OPEN),
        (2.0, 2.4, 2.5, Verdict.MISSED),
        (None, None, 2.5, Verdict.OPEN),
        (2.0, 2.4, None, Verdict.UNCLAIMED),
    ],
)
def test_verdict_needs_the_whole_interval(
    low: float | None, high: float | None, claim: float | None, verdict: Verdict
) -> None:
    assert Estimate(2.45, low, high, 8).verdict(claim) is verdict


# --------------------------------------------------------------------------------------------------------------- rows


def test_rows_have_names_of_their_own() -> None:
    names = [row.name for row in rows.all_rows()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("name", "claim"),
    [
        ("tmpfs/4k-read-qd32", 2.5),
        ("tmpfs/4k-write-qd32", 2.3),
        ("tmpfs/4k-read-qd32-x4", 4.0),
        ("tmpfs/4k-write-qd32-x4", 3.5),
        ("tmpfs/4k-read-qd1", 1.0),
        ("tmpfs/4k-write-qd1", 1.0),
        ("tmpfs/4k-read-qd1-x4", 1.0),
        ("tmpfs/4k-read-qd1-polling", 2.0),
        ("tmpfs/4k-write-qd1-polling", 2.0),
        ("tmpfs/64k-read", 1.7),
        ("tmpfs/64k-write", 1.7),
        ("tmpfs/1m-read", 2.5),
        ("tmpfs/1m-write", 2.5),
        ("ext4/4k-read-qd32-x4", 4.0),
        ("ext4/1m-write", 1.2),
        ("durable/4k-write-qd32", 2.0),
    ],
)
def test_claims_are_those_that_were_promised(name: str, claim: float) -> None:
    (row,) = [row for row in rows.all_rows() if row.name == name]
    speed, p99 = row.comparisons
    assert speed == Comparison(ARRAYD, (TGT, TGT_T1), Metric.RATE, claim)
    assert p99 == Comparison(ARRAYD, (TGT, TGT_T1), Metric.P99, 1.0)


def test_subjects_of_a_row_with_a_peer_do_the_same_work_on_the_same_file_system() -> None:
    for row in rows.all_rows():
        if row.comparisons and row.subjects[0].label == ARRAYD:
            assert len({(subject.works, subject.cold_luns, subject.digests) for subject in row.subjects}) == 1
            assert len({(subject.setup.file_system, subject.setup.durable) for subject in row.subjects}) == 1


def test_option_of_the_load_generator_counts_luns_from_the_targets_first() -> None:
    work = Work("read", depth=8, first_lun=1, luns=3, sequential=True, once=True)
    expected = "op=read,pattern=sequential,bytes=4096,depth=8,sessions=1,lun=2,luns=3,once"
    assert work.option(lun_0=1) == expected


# ------------------------------------------------------------------------------------------------- contest and report


def outcome_of(name: str, **iops: list[float]) -> Outcome:
    """A row on tmpfs with runs that had these rates; p99 is inverse to the rate."""
    (row,) = [row for row in rows.all_rows() if row.name == name]
    labels = {"arrayd": ARRAYD, "tgt": TGT, "tgt_t1": TGT_T1}
    runs = {
        labels[key]: [replace(A_RUN, iops=value, mb_per_s=value, p99_us=1e6 / value) for value in values]
        for key, values in iops.items()
    }
    return Outcome(row, runs)


def test_claim_is_held_against_the_faster_set_up_pair_by_pair() -> None:
    outcome = outcome_of("tmpfs/4k-read-qd32", arrayd=[300, 600, 400], tgt=[50, 60, 70], tgt_t1=[100, 200, 100])
    speed, p99 = outcome.decisions()
    assert (speed.peer, speed.estimate.median) == (TGT_T1, 3.0)
    assert p99.peer == TGT_T1
    assert p99.estimate.median == pytest.approx(3.0)


def test_subjects_take_turns_at_being_first() -> None:
    subjects = rows.all_rows()[0].subjects
    orders = [contest.rotated(subjects, turn) for turn in range(3)]
    for place in range(3):
        assert {order[place].label for order in orders} == {ARRAYD, TGT, TGT_T1}
    assert contest.rotated(subjects, 3) == orders[0]


def test_report_says_what_is_shown_what_is_not_and_what_is_open() -> None:
    outcomes = [
        outcome_of("tmpfs/4k-read-qd32", arrayd=[300.0] * 8, tgt=[50.0] * 8, tgt_t1=[100.0] * 8),
        outcome_of("tmpfs/4k-write-qd32", arrayd=[200.0] * 8, tgt=[50.0] * 8, tgt_t1=[100.0] * 8),
        outcome_of("tmpfs/64k-read", arrayd=[300.0] * 3, tgt=[50.0] * 3, tgt_t1=[100.0] * 3),
    ]
    text = report.text(outcomes, {"processor": "one of those"})
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    found = {line[0]: line[5:9] for line in cells if len(line) == 10 and line[3].endswith(("/s", "MB/s"))}
    assert found == {
        "tmpfs/4k-read-qd32": ["3.00", "3.00-3.00", "2.5", "yes"],
        "tmpfs/4k-write-qd32": ["2.00", "2.00-2.00", "2.3", "NO"],
        "tmpfs/64k-read": ["3.00", "few", "1.7", "open"],
    }
    assert "processor: one of those" in text
    assert "NO: 1 of 6: tmpfs/4k-write-qd32 (rate)" in text


def test_report_says_when_the_load_generator_is_what_was_measured() -> None:
    outcome = outcome_of("tmpfs/4k-read-qd32", arrayd=[300.0], tgt=[50.0], tgt_t1=[100.0])
    assert "may be what was measured (" not in report.text([outcome], {})
    outcome.runs[ARRAYD] = [replace(run, client_share=0.9) for run in outcome.runs[ARRAYD]]
    assert "the load generator itself may be what was measured (arrayd)" in report.text([outcome], {})


def test_report_names_a_row_that_could_not_be_measured() -> None:
    (row,) = [row for row in rows.all_rows() if row.name == "tmpfs/1m-read"]
    failed = Outcome(row, {ARRAYD: []}, failure="GeneratorError: it broke\nand more")
    assert "! not measured: tmpfs/1m-read: GeneratorError: it broke\n" in report.text([failed], {}) + "\n"


def test_lines_of_a_table_are_equally_long() -> None:
    lines = report.table(("row", "b"), [("x", "1"), ("a long name", "1,000")]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "|-------------|------:|"


def test_json_holds_every_run_and_every_decision() -> None:
    outcome = outcome_of("tmpfs/4k-read-qd32", arrayd=[300.0] * 8, tgt=[50.0] * 8, tgt_t1=[100.0] * 8)
    (row,) = json.loads(json.dumps(report.as_json([outcome], {})))["rows"]
    assert [run["iops"] for run in row["runs"][TGT_T1]] == [100.0] * 8
    assert row["comparisons"][0]["shown"] == "yes"
    assert row["comparisons"][0]["against"] == TGT_T1


# ------------------------------------------------------------------------------------------------ machine and backing


def test_file_system_is_that_of_the_longest_mount(tmp_path: Path) -> None:
    assert machine.type_of_file_system(Path("/proc/self")) == "proc"
    assert machine.type_of_file_system(tmp_path) != "proc"


def test_filled_file_has_its_size_and_no_holes(tmp_path: Path) -> None:
    file, size = tmp_path / "volume", 3 * MIB + 512
    backing.fill(file, size)
    assert file.stat().st_size == size
    assert b"\0" * 512 not in file.read_bytes()


def test_a_transfer_is_timed_from_before_the_first_byte_went_until_all_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what is seen of it: not known, all of it twice, half of it, and then that it is over."""
    seconds = itertools.count(100.0)
    monkeypatch.setattr(transfers, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(transfers, "sleep", lambda _seconds: None)
    left = iter([None, 8 * MIB, 8 * MIB, 4 * MIB, None])
    run = transfers.watch(lambda: next(left))
    assert (run.seconds, run.commands) == (3.0, 8)
    with pytest.raises(DaemonError, match="7 bytes are left"):
        transfers.watch(lambda: 7)
