"""The tables that scripts/bench prints, and the same as JSON."""

import statistics as middle
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from scripts.benchmark.contest import Decision, Outcome
from scripts.benchmark.generator import SATURATED_SHARE, Run
from scripts.benchmark.rows import TRANSFERS, Metric, Work
from scripts.benchmark.statistics import ERROR, Estimate, Verdict

SMALL_COMMAND_BYTES = 16 * 1024
OTHERS_DISTURB_SHARE = 0.25
"""Of a core: what else ran on the machine is worth a word then."""

NOTES = f"""\
ratio: the median of paired runs, arrayd over the faster of tgt's two set-ups in that row; above 1 is better.
interval: by the sign test, wrong with a probability of {ERROR:.0%} at most; "few": too few runs for one.
shown: yes and NO when the interval decides the claim, open when it does not yet.
client: the load generator; marked "!" above {SATURATED_SHARE:.0%} of a core: it may be what was measured then.
others: what else used the machine meanwhile, in cores.
"""


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Markdown that also reads well as it is: the first column to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(heads, *lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]) + " |"

    rule = (
        "|" + "|".join("-" * (width + 1) + ("-" if number == 0 else ":") for number, width in enumerate(widths)) + "|"
    )
    return "\n".join([line(heads), rule, *map(line, lines)])


def median_of(runs: Sequence[Run], value: Callable[[Run], float]) -> float:
    """Over the runs of one subject."""
    return middle.median(value(run) for run in runs)


def rate(work: Work, runs: Sequence[Run]) -> str:
    """Commands a second where they are small, megabytes where they are big."""
    if work.op == "idle":
        return "-"
    if work.bytes < SMALL_COMMAND_BYTES:
        return f"{median_of(runs, lambda run: run.iops):,.0f}/s"
    return f"{median_of(runs, lambda run: run.mb_per_s):,.0f} MB/s"


def interval(estimate: Estimate) -> str:
    """Of a ratio."""
    if estimate.low is None or estimate.high is None:
        return "few"
    return f"{estimate.low:.2f}-{estimate.high:.2f}"


def latency_of(metric: Metric) -> Callable[[Run], float]:
    """What is compared of a run, in microseconds."""
    return (lambda run: run.p50_us) if metric is Metric.P50 else (lambda run: run.p99_us)


def ratio_line(outcome: Outcome, decision: Decision) -> list[str]:
    """One comparison: both rates or latencies, ratio, interval, claim, verdict, number of pairs."""
    of, peer = outcome.runs[decision.comparison.of], outcome.runs[decision.peer]
    if decision.comparison.metric is Metric.RATE:
        work = outcome.row.subjects[0].works[0]
        values = [rate(work, of), rate(work, peer)]
    else:
        latency = latency_of(decision.comparison.metric)
        values = [f"{median_of(runs, latency):,.0f} us" for runs in (of, peer)]
    claim = decision.comparison.at_least
    return [
        *values,
        f"{decision.estimate.median:.2f}",
        interval(decision.estimate),
        "-" if claim is None else f"{claim:g}",
        decision.verdict.value,
    ]


def comparison_table(outcomes: Sequence[Outcome], metric: Metric) -> str:
    """Every comparison by one metric."""
    heads = ("row", "subject", "beside", "subject's", "peer's", "ratio", "interval", "claim", "shown", "runs")
    lines = []
    for outcome in outcomes:
        for decision in outcome.decisions():
            if decision.comparison.metric is metric:
                who = [outcome.row.name, decision.comparison.of, decision.peer]
                lines.append([*who, *ratio_line(outcome, decision), str(decision.estimate.count)])
    return table(heads, lines) if lines else "(none)"


def subject_table(outcomes: Sequence[Outcome]) -> str:
    """Every subject: rate, latencies, processor time; medians over its runs."""
    latency_heads = ("p50 us", "p99 us", "p99.9 us", "max us")
    heads = ("row", "subject", "rate", *latency_heads, "target us/command", "target", "client", "others")
    lines = []
    for outcome in outcomes:
        for subject in outcome.row.subjects:
            runs = outcome.runs[subject.label]
            without_commands = subject.works[0].op in ("idle", *TRANSFERS)
            latencies: list[Callable[[Run], float]] = [
                lambda run: run.p50_us, lambda run: run.p99_us, lambda run: run.p999_us, lambda run: run.max_us,
            ]  # fmt: skip
            client = median_of(runs, lambda run: run.client_share)
            lines.append([
                outcome.row.name,
                subject.label,
                rate(subject.works[0], runs),
                *("-" if without_commands else f"{median_of(runs, value):,.0f}" for value in latencies),
                "-" if without_commands else f"{median_of(runs, lambda run: run.target_us_a_command):.1f}",
                f"{median_of(runs, lambda run: run.target_share):.1%}",
                f"{client:.0%}" + ("!" if client > SATURATED_SHARE else ""),
                f"{median_of(runs, lambda run: run.others_share):.2f}",
            ])  # fmt: skip
    return table(heads, lines) if lines else "(none)"


def first_line(words: str | None) -> str:
    """Of an error; the rest of it went by on stderr."""
    return (words or "").partition("\n")[0]


def warnings(outcomes: Sequence[Outcome], failed: Sequence[Outcome]) -> list[str]:
    """What a reader of the figures must know."""
    found = [f"not measured: {outcome.row.name}: {first_line(outcome.failure)}" for outcome in failed]
    for outcome in outcomes:
        saturated = [
            label
            for label, runs in outcome.runs.items()
            if median_of(runs, lambda run: run.client_share) > SATURATED_SHARE
        ]
        if saturated:
            found.append(
                f"{outcome.row.name}: the load generator itself may be what was measured ({', '.join(saturated)})"
            )
    busy = [median_of(runs, lambda run: run.others_share) for outcome in outcomes for runs in outcome.runs.values()]
    if busy and middle.median(busy) > OTHERS_DISTURB_SHARE:
        found.append(f"the machine was not idle: something else used {middle.median(busy):.2f} cores at the median")
    return found


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many claims are shown, and which are not."""
    verdicts = [(outcome.row.name, decision) for outcome in outcomes for decision in outcome.decisions()]
    claimed = [(name, decision) for name, decision in verdicts if decision.verdict is not Verdict.UNCLAIMED]
    lines = []
    for verdict in (Verdict.SHOWN, Verdict.MISSED, Verdict.OPEN):
        names = [
            f"{name} ({decision.comparison.metric.value})" for name, decision in claimed if decision.verdict is verdict
        ]
        lines.append(
            f"{verdict.value:>4}: {len(names)} of {len(claimed)}"
            + (f": {', '.join(names)}" if verdict is not Verdict.SHOWN and names else "")
        )
    return "\n".join(lines)


def text(outcomes: Sequence[Outcome], machine: dict[str, str]) -> str:
    """The whole report."""
    measured = [outcome for outcome in outcomes if outcome.failure is None]
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    parts = [
        "\n".join(f"{name}: {value}" for name, value in machine.items()),
        "## Speed\n\n" + comparison_table(measured, Metric.RATE),
        "## Median latency\n\n" + comparison_table(measured, Metric.P50),
        "## p99 latency\n\n" + comparison_table(measured, Metric.P99),
        "## Every subject\n\n" + subject_table(measured),
        "## Claims\n\n" + summary(measured),
        NOTES.rstrip(),
        *(f"! {warning}" for warning in warnings(measured, failed)),
    ]
    return "\n\n".join(parts)


def as_json(outcomes: Sequence[Outcome], machine: dict[str, str]) -> dict[str, Any]:
    """Everything, single runs included."""
    return {"machine": machine, "rows": [row_as_json(outcome) for outcome in outcomes]}


def row_as_json(outcome: Outcome) -> dict[str, Any]:
    """One row."""
    decisions = [] if outcome.failure else outcome.decisions()
    return {
        "row": outcome.row.name,
        "failure": outcome.failure,
        "runs": {label: [asdict(run) for run in runs] for label, runs in outcome.runs.items()},
        "comparisons": [
            {
                "of": decision.comparison.of,
                "against": decision.peer,
                "metric": decision.comparison.metric.value,
                "claim": decision.comparison.at_least,
                "shown": decision.verdict.value,
                **asdict(decision.estimate),
            }
            for decision in decisions
        ],
    }
