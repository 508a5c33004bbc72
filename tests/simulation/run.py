"""Runs scenarios by their seeds, and says what went wrong: the seed, the promise that was not kept, the trace.

`scripts/simulate` is the command line. A scenario is `async def scenario(world)`, which raises Violated; `SCENARIOS`
has all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.simulation.coverage import MIRRORED, SEPARATOR, print_tables
from tests.simulation.faults import KINDS, UNEVEN_KINDS
from tests.simulation.linked import linked
from tests.simulation.mirror_mutations import MIRROR_MUTATIONS
from tests.simulation.mutations import MUTATIONS
from tests.simulation.operations import NOT_MIRRORED, VERBS
from tests.simulation.pair_mutations import PAIR_MUTATIONS
from tests.simulation.paired import NOT_MIRRORED as FAULTS_NOT_MIRRORED
from tests.simulation.paired import mirrored, paired, pairs
from tests.simulation.world import Violated, World, replaced

SCENARIOS: dict[str, Callable[[World], Any]] = {
    "linked": linked,
    "paired": paired,
    "mirrored": mirrored,
    "pairs": pairs,
}
"""By their names."""
DONE = tuple(name.replace("_", " ") for name in (*VERBS, *KINDS, *UNEVEN_KINDS))
"""Whatever operator and faults may do in a scenario that has pairs."""
DONE_MIRRORED = tuple(
    f"{name.replace('_', ' ')}{MIRRORED}"
    for name in (*VERBS, *KINDS, *UNEVEN_KINDS)
    if name not in (*NOT_MIRRORED, *FAULTS_NOT_MIRRORED)
)
"""Likewise with a synchronous group."""
ROWS: dict[str, tuple[str, ...]] = {
    "linked": (),
    "paired": DONE,
    "mirrored": DONE_MIRRORED,
    "pairs": (*DONE, *DONE_MIRRORED),
}
"""Of the table of coverage, by what pairs showed."""
BY_SCENARIO: dict[str, dict[str, dict[str, Any]]] = {
    "linked": MUTATIONS,
    "paired": PAIR_MUTATIONS,
    "mirrored": MIRROR_MUTATIONS,
}
"""Faults that are made on purpose, which its seeds have to find."""
MUTATED = {"pairs": ("paired", "mirrored")}
"""The scenarios that have those of one that is any of them."""
SEEDS_AT_ONCE = 20
TOLD_EVERY = 500
"""Seeds after which it is said how many there were."""
INTERRUPTED = 130
"""Exit code: 128 and SIGINT."""


@dataclass
class Outcome:
    """What one seed has brought; `why` is empty if every promise was kept."""

    seed: int
    why: str
    seconds: float
    trace: str = ""
    counts: Counter[str] = field(default_factory=Counter)


def run(seed: int, scenario: str = "linked", show: Callable[[str], None] | None = None) -> Outcome:
    """Runs one seed. Memory is not collected meanwhile, which would run the finalizers of dead lives, but then; what
    these have left goes without a word: coroutines that nobody awaited, tasks that never ended."""
    collecting = gc.isenabled()
    gc.disable()
    hook, sys.unraisablehook = sys.unraisablehook, lambda _told: None
    try:
        outcome = _run(seed, scenario, show)
        # With none, finalizers that ask for a loop get an error, and no new one, which would keep all of a world.
        asyncio.set_event_loop(None)
        gc.collect()
        return outcome
    finally:
        sys.unraisablehook = hook
        if collecting:
            gc.enable()


def _run(seed: int, scenario: str, show: Callable[[str], None] | None) -> Outcome:
    begun, why = time.perf_counter(), ""
    world = World(seed, show)
    try:
        world.run(SCENARIOS[scenario])
    except Exception as error:
        first = _first(error)
        why = f"{type(first).__name__}: {first}"
        if not isinstance(first, Violated):
            world.trace.note("-", "".join(traceback.format_exception(first)))
    return Outcome(seed, why, time.perf_counter() - begun, world.trace.text() if why else "", counted(world))


def _first(error: BaseException) -> BaseException:
    """What began it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def counted(world: World) -> Counter[str]:
    """What happened, for the table of coverage."""
    counts = Counter({f"{kind} {moment}": count for (kind, moment), count in world.deaths.items()})
    scenario = world.scenario
    if scenario is not None:
        counts.update({f"fault {kind}": count for kind, count in scenario.faults.made.items()})
        counts["host writes"] += sum(region.writes for region in scenario.regions)
        counts["host reads"] += sum(region.promise.reads for region in scenario.regions)
        counts["commands"] += scenario.commanded
        counts += getattr(scenario, "counts", Counter())
    counts["starts"] += sum(machine.lives for machine in world.machines.values())
    counts["virtual seconds"] += round(world.loop.time())
    return counts


def run_some(scenario: str, seeds: range) -> list[Outcome]:
    """Runs several seeds in this process."""
    gc.freeze()  # what is there now stays: to look at it after each seed takes longer than a seed does
    return [run(seed, scenario) for seed in seeds]


def run_many(seeds: range, scenario: str, workers: int) -> Iterator[Outcome]:
    """Runs seeds, in order as far as one worker goes."""
    pieces = [seeds[at : at + SEEDS_AT_ONCE] for at in range(0, len(seeds), SEEDS_AT_ONCE)]
    if workers <= 1:
        for piece in pieces:
            yield from run_some(scenario, piece)
        return
    # Ctrl-C is for who prints: workers end when they have no more to do.
    with ProcessPoolExecutor(workers, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:
        for outcomes in pool.map(partial(run_some, scenario), pieces):
            yield from outcomes


def main(arguments: list[str]) -> int:
    """The command line; the exit code: 1 if a promise was not kept."""
    parser = argparse.ArgumentParser(prog="simulate", description="Runs whole arrays in virtual time, from seeds.")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, help="this one alone")
    which.add_argument("--seeds", type=int, metavar="N", help="so many")
    parser.add_argument("--from", type=int, default=1, dest="first", metavar="M", help="the first of them (1)")
    parser.add_argument("--workers", type=int, default=1, help="processes (1)")
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), default="pairs", help="(pairs)")
    parser.add_argument("--mutations", action="store_true", help="made on purpose: which seed finds each first")
    parser.add_argument("--trace", action="store_true", help="shows what happens, line by line")
    parser.add_argument("--traces", type=Path, default=Path("."), metavar="FOLDER", help="where traces are put (.)")
    told = parser.parse_args(arguments)
    if told.mutations:
        seeds = range(told.first, told.first + (told.seeds or 1))
        return max([find_mutations(each, seeds) for each in MUTATED.get(told.scenario, (told.scenario,))])
    if told.seed is not None:
        outcomes: Iterator[Outcome] = iter([run(told.seed, told.scenario, print if told.trace else None)])
    else:
        outcomes = run_many(range(told.first, told.first + told.seeds), told.scenario, told.workers)
    return report(outcomes, told.traces, told.scenario)


def find_mutations(scenario: str, seeds: range) -> int:
    """Prints which of the seeds finds each fault that is made on purpose; the exit code: 1 if none finds one."""
    unfound = 0
    for name, stand_ins in BY_SCENARIO[scenario].items():
        begun = time.perf_counter()
        with replaced(stand_ins):
            outcomes = (run(seed, scenario) for seed in seeds)
            found = next((each for each in outcomes if each.why), None)
        unfound += found is None
        seed, why = ("none", "") if found is None else (f"seed {found.seed}", found.why)
        print(f"{name}: {seed}, {time.perf_counter() - begun:.0f} s: {why}", flush=True)
    return 1 if unfound else 0


def report(outcomes: Iterator[Outcome], folder: Path, scenario: str) -> int:
    """Prints what fails as it comes, and what happened at the end, or until it is interrupted."""
    seeds, failed, seconds, counts, interrupted = 0, 0, 0.0, Counter[str](), False
    try:
        for outcome in outcomes:
            seeds += 1
            seconds += outcome.seconds
            counts += outcome.counts
            if outcome.why:
                failed += 1
                folder.mkdir(parents=True, exist_ok=True)
                file = folder / f"simulation-{scenario}-{outcome.seed}.trace"
                file.write_text(outcome.trace)
                print(f"seed {outcome.seed}: {outcome.why}\n    trace: {file}", flush=True)
            if not seeds % TOLD_EVERY:
                print(f"{seeds} seeds, {failed} failed", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        interrupted = True
    empty = print_tables(counts, ROWS[scenario])
    for what, count in sorted(counts.items()):
        if SEPARATOR not in what:
            print(f"{count:>10}  {what}")
    if empty:
        print(f"{empty} cells are empty")
    print(f"{seeds} seeds, {failed} failed, {seconds / max(seeds, 1):.3f} s each")
    return 1 if failed else INTERRUPTED if interrupted else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
