"""The load generator: built from ``load/`` at first use, run once a measurement, its JSON read into a ``Run``."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.benchmark.rows import Work

SOURCES = Path(__file__).parent / "load"
COMPILE = ("gcc", "-std=gnu17", "-O2", "-flto", "-Wall", "-Wextra")
LIMIT_BEYOND_RUN_S = 60.0
SATURATED_SHARE = 0.85
"""Of a core: a load generator that uses more is what is measured, not the target."""


class GeneratorError(Exception):
    """The load generator could not be built, or a run went wrong; the text is what it said."""


@dataclass(frozen=True)
class Run:
    """One measurement of the first work: what was answered in it, and its latencies in microseconds."""

    seconds: float
    commands: int
    iops: float
    mb_per_s: float
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float
    target_us_a_command: float
    target_share: float
    """Processor time of the target a second: 1.0 is a core."""
    client_share: float
    others_share: float
    """What the rest of the machine used meanwhile; its interrupts too."""

    @property
    def client_saturated(self) -> bool:
        """Whether the load generator may be what was measured."""
        return self.client_share > SATURATED_SHARE


@dataclass(frozen=True)
class Place:
    """Where a target is reached, and the process whose processor time counts."""

    port: int
    name: str
    pid: int
    lun_0: int


def build(cache: Path) -> Path:
    """Compile ``load/`` into ``cache``, unless these very sources have been already."""
    sources = sorted(SOURCES.glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources) + " ".join(COMPILE).encode())
    program = cache / f"load-{digest.hexdigest()[:16]}"
    if program.exists():
        return program
    if shutil.which(COMPILE[0]) is None:
        raise GeneratorError("needs gcc: apt-get install gcc libc6-dev")
    cache.mkdir(parents=True, exist_ok=True)
    unfinished = program.with_suffix(f".{os.getpid()}")
    files = [str(source) for source in sources if source.suffix == ".c"]
    done = subprocess.run([*COMPILE, "-o", str(unfinished), *files], capture_output=True, text=True)
    if done.returncode:
        raise GeneratorError(done.stderr)
    unfinished.replace(program)
    return program


def run(
    program: Path,
    place: Place,
    works: Sequence[Work],
    *,
    seconds: float,
    warmup: float,
    seed: int,
    digests: bool = False,
    options: Sequence[str] = (),
) -> Run:
    """One measurement of ``works``, all at once; raises when a command failed or the target did not do as asked.

    ``options`` are more of the load generator's own.
    """
    command = [str(program), "--port", str(place.port), "--target", place.name, "--target-pid", str(place.pid)]
    command += ["--seconds", str(seconds), "--warmup", str(warmup), "--seed", str(seed)]
    command += ["--header-digest", "--data-digest"] if digests else []
    command += options
    for work in works:
        command += ["--work", work.option(place.lun_0)]
    limit = seconds + warmup + LIMIT_BEYOND_RUN_S
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        raise GeneratorError(f"no end after {limit:.0f} s") from None
    if done.returncode:
        raise GeneratorError(done.stderr.strip())
    answer = json.loads(done.stdout)
    if digests and not (answer["negotiated"]["header_digest"] and answer["negotiated"]["data_digest"]):
        raise GeneratorError("the target refused the digests")
    measured = parse(answer)
    if not measured.commands and works[0].op != "idle":
        raise GeneratorError("no command was answered during the measurement")
    return measured


def parse(answer: dict[str, Any]) -> Run:
    """The load generator's JSON as a ``Run``."""
    first, latency, seconds = answer["works"][0], answer["works"][0]["latency_us"], answer["seconds"]
    commands = sum(work["commands"] for work in answer["works"])
    target, client = answer["target_cpu_seconds"], answer["client_cpu_seconds"]
    return Run(
        seconds=seconds,
        commands=first["commands"],
        iops=first["iops"],
        mb_per_s=first["mb_per_s"],
        p50_us=latency["p50"],
        p99_us=latency["p99"],
        p999_us=latency["p99.9"],
        max_us=latency["max"],
        target_us_a_command=target / commands * 1e6 if commands else 0.0,
        target_share=target / seconds,
        client_share=client / seconds,
        others_share=max(0.0, answer["machine_busy_seconds"] - target - client) / seconds,
    )
