"""The command line of the benchmark (``scripts/bench``)."""

import argparse
import fnmatch
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from scripts.benchmark import generator, machine, report, target_tgt
from scripts.benchmark.contest import EXPECTED_ERRORS, FULL, QUICK, Contest, Outcome, TargetPool
from scripts.benchmark.rows import FileSystem, Row, all_rows

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / ".cache"
MEMORY = Path("/dev/shm")


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What the user asks for."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measure arrayd beside tgt, in turn, on the same work."
    )
    parser.add_argument(
        "--rows", metavar="PATTERN", action="append", help="only rows like tmpfs/* or *qd32*; may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="name the rows and their claims, and end")
    parser.add_argument("--quick", action="store_true", help="few and short runs: a first look, decides nothing")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write everything there, single runs included")
    parser.add_argument(
        "--memory", metavar="DIR", type=Path, default=MEMORY, help="for the tmpfs rows (default: %(default)s)"
    )
    parser.add_argument(
        "--disk", metavar="DIR", type=Path, default=CACHE, help="for the ext4 rows (default: .cache of the checkout)"
    )
    return parser.parse_args(words)


def chosen_rows(patterns: Sequence[str] | None) -> list[Row]:
    """The rows whose name matches one of ``patterns``; a pattern that matches none is a mistake."""
    rows = all_rows()
    for pattern in patterns or ():
        if not fnmatch.filter([row.name for row in rows], pattern):
            raise SystemExit(f"--rows {pattern}: no row of that name; see --list")
    return [row for row in rows if not patterns or any(fnmatch.fnmatch(row.name, pattern) for pattern in patterns)]


def list_rows(rows: Sequence[Row]) -> str:
    """The rows with what each is there to show."""
    lines = []
    for row in rows:
        for comparison in row.comparisons or (None,):
            if comparison is None:
                lines.append([row.name, "watched", "-", "-"])
            else:
                claim = "-" if comparison.at_least is None else f"{comparison.at_least:g}"
                lines.append(
                    [row.name, comparison.metric.value, f"{comparison.of} / {' or '.join(comparison.against)}", claim]
                )
    return report.table(("row", "metric", "ratio", "claim"), lines)


def tell(message: str) -> None:
    """Progress, apart from the report."""
    print(message, file=sys.stderr, flush=True)


def measure(rows: Sequence[Row], asked: argparse.Namespace) -> bool:
    """Measure, print the report; whether every row could be measured."""
    pace = QUICK if asked.quick else FULL
    asked.disk.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    with ExitStack() as stack:
        folders = {
            file_system: Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="arrayd-bench-", dir=place)))
            for file_system, place in ((FileSystem.TMPFS, asked.memory), (FileSystem.EXT4, asked.disk))
        }
        places = {f"{file_system.value} rows": folder.parent for file_system, folder in folders.items()}
        named = machine.description(target_tgt.program("tgtd"), places)
        contest = Contest(generator.build(CACHE), stack.enter_context(TargetPool(folders, pace)), pace, tell)
        for row in rows:
            outcomes.append(contest.measure(row))
            if outcomes[-1].failure:
                tell(f"{row.name}: {outcomes[-1].failure}")
            if asked.json:  # after each row: whoever breaks off keeps what there is
                asked.json.write_text(json.dumps(report.as_json(outcomes, named), indent=1) + "\n")
        print(report.text(outcomes, named))
    return not any(outcome.failure for outcome in outcomes)


def main() -> int:
    """0 when every row was measured, whatever came out; 1 when one could not be, or a target did not end well."""
    asked = arguments()
    rows = chosen_rows(asked.rows)
    if asked.list:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # whoever reads may have enough
        print(list_rows(rows))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no target is left behind
    try:
        return 0 if measure(rows, asked) else 1
    except EXPECTED_ERRORS as error:
        tell(f"scripts/bench: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
