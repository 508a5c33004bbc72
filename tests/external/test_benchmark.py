"""The benchmark with real parts: its load generator against both targets, its files, its command line."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.benchmark import backing, contest, generator, machine
from scripts.benchmark.contest import Pace, TargetPool
from scripts.benchmark.generator import GeneratorError
from scripts.benchmark.rows import KIB, MIB, FileSystem, TargetSetup, Work
from tests.lab import parts

CHECKOUT = Path(__file__).resolve().parents[2]
VOLUME_BYTES = 16 * MIB
ARRAYD = TargetSetup("arrayd", FileSystem.TMPFS, luns=2)
TGT = TargetSetup("tgt", FileSystem.TMPFS, luns=2, io_threads=1)
SECONDS_AT_MOST = 10.0
"""Of a run that ends by itself, when every place was used once."""

WAYS_TO_CARRY_WRITES = {
    "immediate and unsolicited": (),
    "solicited only": ("--initial-r2t", "--no-immediate-data"),
    "unsolicited only": ("--no-immediate-data", "--first-burst", "65536"),
    "short bursts": ("--first-burst", "4096", "--max-burst", "12288"),
}

StartTarget = Callable[[TargetSetup], contest.Target]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The load generator, compiled."""
    parts.require("gcc")
    return generator.build(tmp_path_factory.mktemp("load"))


@pytest.fixture
def start_target(tmp_path: Path) -> Iterator[StartTarget]:
    """``start_target(setup)``: a target as the benchmark starts it, with small volumes, stopped after the test."""

    def start(setup: TargetSetup) -> contest.Target:
        if setup.program == "tgt":
            parts.require("tgtd")
        return pool.target(setup)

    pace = Pace(volume_bytes=VOLUME_BYTES, looks=(1,), seconds_factor=1.0)
    with TargetPool(dict.fromkeys(FileSystem, tmp_path), pace) as pool:
        yield start


def run_once(load: Path, target: contest.Target, work: Work, *options: str, digests: bool = False) -> generator.Run:
    """Every place of the work's LUN once, with --verify."""
    limits = {"seconds": SECONDS_AT_MOST, "warmup": 0.0}
    options = ("--verify", *options)
    return generator.run(load, target.place, [work], **limits, seed=3, digests=digests, options=options)


def assert_all_but_the_last_were_counted(work: Work, run: generator.Run) -> None:
    """The measurement ends when there is no place left to ask for; what is in flight then is checked, not counted."""
    places = VOLUME_BYTES // work.bytes
    assert places - work.depth <= run.commands <= places


@pytest.mark.parametrize("way", WAYS_TO_CARRY_WRITES)
@pytest.mark.parametrize("bytes_a_command", [4 * KIB, MIB])
def test_what_is_read_from_arrayd_is_what_was_written(
    load: Path, start_target: StartTarget, bytes_a_command: int, way: str
) -> None:
    target, options = start_target(ARRAYD), WAYS_TO_CARRY_WRITES[way]
    for lun, digests in enumerate((False, True)):
        write = Work("write", bytes_a_command, depth=8, first_lun=lun, once=True)
        read = Work("read", 8 * KIB, depth=32, first_lun=lun, once=True)
        wrote = run_once(load, target, write, *options, digests=digests)
        assert_all_but_the_last_were_counted(write, wrote)
        assert_all_but_the_last_were_counted(read, run_once(load, target, read, digests=not digests))


def test_the_same_against_tgt(load: Path, start_target: StartTarget) -> None:
    target = start_target(TGT)
    run_once(load, target, Work("write", 256 * KIB, depth=8, sequential=True, once=True))
    assert run_once(load, target, Work("read", 8 * KIB, depth=32, once=True)).client_share > 0


@pytest.mark.parametrize("setup", [ARRAYD, TGT], ids=["arrayd", "tgt"])
def test_one_wrong_byte_is_found(load: Path, start_target: StartTarget, setup: TargetSetup) -> None:
    target = start_target(setup)
    run_once(load, target, Work("write", MIB, depth=4, sequential=True, once=True))
    with target.files[0].open("r+b", buffering=0) as file:
        (byte,) = os.pread(file.fileno(), 1, VOLUME_BYTES // 2 + 77)
        os.pwrite(file.fileno(), bytes([byte ^ 1]), VOLUME_BYTES // 2 + 77)
    with pytest.raises(GeneratorError, match=f"LBA {VOLUME_BYTES // 2 // 512}: .*not what was written there"):
        run_once(load, target, Work("read", 64 * KIB, depth=4, once=True))


def test_a_target_without_digests_is_not_measured_as_if_it_had_them(load: Path, start_target: StartTarget) -> None:
    place = start_target(TGT).place
    with pytest.raises(GeneratorError, match="refused the digests"):
        generator.run(load, place, [Work("read")], seconds=0.1, warmup=0.0, seed=1, digests=True)


def test_sessions_at_rest_cost_nothing_to_the_load_generator(load: Path, start_target: StartTarget) -> None:
    place = start_target(ARRAYD).place
    run = generator.run(load, place, [Work("idle", sessions=4)], seconds=0.5, warmup=0.0, seed=1)
    assert run.commands == 0
    assert run.client_share < generator.SATURATED_SHARE / 2


def test_writes_with_synchronize_cache_beside_reads_on_another_lun(load: Path, start_target: StartTarget) -> None:
    works = [Work("read", depth=8), Work("sync", depth=4, first_lun=1)]
    run = generator.run(load, start_target(ARRAYD).place, works, seconds=0.2, warmup=0.0, seed=1)
    assert 0 < run.p50_us <= run.p99_us <= run.p999_us <= run.max_us


def test_cooled_file_is_read_from_the_disk_and_warmed_file_is_not(tmp_path: Path) -> None:
    if machine.type_of_file_system(tmp_path) in ("tmpfs", "ramfs"):
        pytest.skip("needs a folder for temporary files on a disk: pytest --basetemp")
    file = tmp_path / "volume"
    backing.fill(file, VOLUME_BYTES)
    backing.cool([file])
    assert backing.cold_share(file) >= backing.COLD_SHARE
    backing.warm([file])
    assert backing.cold_share(file) == 0


def test_command_line_measures_a_row_and_leaves_nothing_behind(tmp_path: Path) -> None:
    parts.require("gcc", "tgtd")
    folder, result = tmp_path / "volumes", tmp_path / "result.json"
    folder.mkdir()
    places = ["--memory", str(folder), "--disk", str(folder)]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "scripts.benchmark",
            "--quick",
            "--rows",
            "tmpfs/4k-read-qd32",
            "--json",
            result,
            *places,
        ],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
    )
    assert done.returncode == 0, done.stderr
    assert "tmpfs/4k-read-qd32" in done.stdout
    (row,) = json.loads(result.read_text())["rows"]
    assert {label: len(runs) for label, runs in row["runs"].items()} == {"arrayd": 3, "tgt": 3, "tgt -t 1": 3}
    assert not list(folder.iterdir())
