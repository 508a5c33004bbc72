"""How long something takes is told where it is known, and not where it stands still or has hardly begun."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.replication.jobs import (
    LEFT_SECONDS_MAX,
    MEASURED_SECONDS,
    SAMPLE_SECONDS,
    SAMPLES_MAX,
    STALLED_SECONDS,
    WINDOW_SECONDS,
    Job,
    Meter,
)

SPARE = 2 * SAMPLE_SECONDS


@pytest.mark.parametrize(
    ("job", "seconds"),
    [
        (Job(), None),
        (Job(left=100), None),
        (Job(rate=10.0), None),
        (Job(left=100, rate=10.0), 10.0),
        (Job(left=0), 0.0),
        (Job(left=0, rate=10.0), 0.0),
        (Job(left=1 << 50, rate=1.0), None),
        (Job(left=int(LEFT_SECONDS_MAX), rate=1.0), LEFT_SECONDS_MAX),
    ],
)
def test_how_long_it_takes(job: Job, seconds: float | None) -> None:
    assert job.seconds_left == seconds


def test_the_rate_is_not_known_before_it_was_measured() -> None:
    meter = Meter(100.0)
    assert meter.rate(100.0 + MEASURED_SECONDS) is None, "nothing is done"
    meter.add(101.0, 1000)
    assert meter.rate(101.0) is None
    assert meter.rate(100.0 + MEASURED_SECONDS) == 1000 / MEASURED_SECONDS
    assert meter.done == 1000


def test_the_rate_is_that_of_the_last_while() -> None:
    meter = Meter(0.0)
    for second in range(1, 101):
        meter.add(float(second), 10)
    for tenth in range(1, 1000):
        meter.add(100.0 + tenth / 10, 100)
    rate = meter.rate(200.0)
    assert rate is not None
    assert rate == pytest.approx(1000, rel=0.02)


def test_what_stands_still_has_no_rate_and_none_of_before_when_it_goes_on() -> None:
    meter = Meter(0.0)
    for second in range(20):
        meter.add(float(second), 1000)
    assert meter.rate(19.0 + STALLED_SECONDS) is not None
    assert meter.rate(19.1 + STALLED_SECONDS) is None
    meter.add(100.0, 50)
    assert meter.rate(100.0) is None
    meter.add(100.0 + MEASURED_SECONDS, 50)
    assert meter.rate(100.0 + MEASURED_SECONDS) == 100 / MEASURED_SECONDS


def test_what_goes_on_otherwise_is_measured_anew() -> None:
    meter = Meter(0.0)
    for second in range(20):
        meter.add(float(second), 1000)
    meter.restart(20.0)
    assert meter.rate(21.0) is None
    meter.add(22.0, 10)
    assert meter.rate(22.0) == 5.0
    assert meter.done == 20_010


@given(st.lists(st.tuples(st.floats(0.01, STALLED_SECONDS), st.integers(1, 1000)), min_size=1, max_size=200))
def test_no_rate_is_of_more_than_what_was_done_in_the_while(steps: list[tuple[float, int]]) -> None:
    meter, now, done = Meter(0.0), 0.0, [(0.0, 0)]
    for pause, count in steps:
        now += pause
        meter.add(now, count)
        done.append((now, meter.done))
        rate = meter.rate(now)
        assert len(meter._samples) <= SAMPLES_MAX
        if rate is not None:
            long_ago = [total for at, total in done if at < now - WINDOW_SECONDS - STALLED_SECONDS - SPARE]
            assert 0 < rate * MEASURED_SECONDS <= meter.done - (long_ago or [0])[-1] + 1e-6
