"""PostgreSQL on two LUNs of one group, its data on one and its write-ahead log on the other: the site of the P-VOLs is
lost at random moments, array and host, and PostgreSQL goes on at the other one with what was committed. A synchronous
group has all of it there, an asynchronous one the first transactions up to some.

    ARRAYD_POSTGRES_TAKEOVERS=50 ARRAYD_SEED=7 pytest tests/external/test_pairs_postgres.py -k sync

Its own tools then find nothing wrong with any block, table and index; and transactions of its own benchmark, several at
once, are there as a whole or not at all.
"""

import os
import random
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from arrayd.replication.exit_codes import Takeover
from tests.lab import parts
from tests.lab.daemon import ArraydProcess
from tests.lab.mounted import Mounted
from tests.lab.paired import ASYNC, PairedArrays
from tests.lab.postgres import POLL_SECONDS, RECOVERED, Postgres, reachable_folder
from tests.lab.workload import Workload

TAKEOVERS: Final = int(os.environ.get("ARRAYD_POSTGRES_TAKEOVERS", "2"))
"""Rounds of each kind of group; more by hand."""
SEED: Final = int(os.environ.get("ARRAYD_SEED", "15"))

pytestmark = [pytest.mark.external, pytest.mark.timeout(120 + 60 * TAKEOVERS)]

VOLUMES: Final = {"data": {"size": "192MiB"}, "wal": {"size": "64MiB"}}
JOURNAL_BYTES: Final = 128 << 20
SYNC: Final = {"mode": "sync", "fence": "data"}
SECONDS: Final = 60
LIFE_SECONDS: Final = 2.0
"""At the most, from when something is known to be on the S-VOLs to the loss of the site."""
TRANSACTIONS: Final = 20
"""Numbered ones that are committed before that, at the least; and as many of the benchmark."""
TRANSACTIONS_MAX: Final = 20_000
"""Of a round: more than there will be."""
BENCHMARK: Final = ("--client=4", "--time=3600", "--no-vacuum")

TABLES: Final = """
CREATE EXTENSION amcheck;
CREATE TABLE numbered (number integer PRIMARY KEY, content text NOT NULL);
CREATE INDEX ON numbered (content);
CREATE TABLE newest (number integer NOT NULL);
INSERT INTO newest VALUES (0);
"""
TRANSACTION: Final = """
BEGIN;
INSERT INTO numbered VALUES ({number}, repeat(md5('{number}'), 10));
UPDATE newest SET number = {number};
COMMIT;
\\warn {number}
"""
"""The number is written, without a buffer, when the server has answered the COMMIT, and not if it failed."""
MONEY: Final = """
SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches),
       (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(delta) FROM pgbench_history)
"""
"""Four sums to which each transaction of the benchmark adds the same."""


@pytest.fixture(autouse=True)
def _needs() -> None:
    parts.require(*parts.POSTGRES_PROGRAMS)
    parts.require_fuse()


@pytest.fixture
def folder() -> Iterator[Path]:
    with reachable_folder() as made:
        yield made


class Site:
    """Where the database is: the file systems, always at the same places, the server and its clients, as long as
    `stack` lasts."""

    def __init__(self, stack: ExitStack, folder: Path, logs: Path, array: ArraydProcess) -> None:
        self._folder, self._logs = folder, logs
        self._disks = stack.enter_context(ExitStack())
        self.mounted = Mounted(self._disks, folder, array, len(VOLUMES), made=True)
        data, wal = self.mounted.folders
        self.server = Postgres(folder, data / "data", wal / "wal", logs / "postgres.log")
        stack.callback(self.server.gone)
        stack.callback(self.lose)

    def move(self, array: ArraydProcess) -> None:
        """To another array, after it was lost: both file systems replay their journals, and the server its log."""
        self._disks.close()
        self.mounted = Mounted(self._disks, self._folder, array, len(VOLUMES), made=False)
        logged = len(self.server.log)
        self.server.start()
        assert RECOVERED in self.server.log[logged:]

    def lose(self) -> None:
        """The host is lost, if it was not before."""
        self.server.kill()
        self.mounted.abandon()

    def check(self) -> None:
        """Nothing is wrong with tables, indexes, blocks and file systems. The server is started anew."""
        self.server.check_relations()
        self.server.stop()
        self.server.check_sums()
        self.mounted.check()
        self.server.start()

    @contextmanager
    def load(self, first: int) -> Iterator[Workload]:
        """The benchmark, and numbered transactions from `first` on one after the other; until the end."""
        statements = self._logs / "statements.sql"
        numbers = range(first, first + TRANSACTIONS_MAX)
        statements.write_text("".join(TRANSACTION.format(number=number) for number in numbers))
        with (self._logs / "pgbench.log").open("wb") as log, statements.open("rb") as stdin:
            benchmark = self.server.open("pgbench", *BENCHMARK, stdout=log)
            psql = self.server.open("psql", "-Xq", "-v", "ON_ERROR_STOP=1", stdin=stdin, stdout=subprocess.PIPE)
        running = Workload(first, psql)
        try:
            yield running
        finally:
            running.stop()
            benchmark.kill()
            benchmark.wait(SECONDS)

    def benchmarked(self) -> int:
        """Transactions of the benchmark that are committed."""
        (count,) = self.server.sql("SELECT count(*) FROM pgbench_history")
        return int(count)


def check_transactions(server: Postgres) -> int:
    """The numbered transactions that are there are the first ones, each as a whole; how many. Those of the benchmark
    are there as a whole."""
    numbers = [int(row) for row in server.sql("SELECT number FROM numbered ORDER BY number")]
    assert numbers == list(range(1, len(numbers) + 1)), f"{len(numbers)} up to {numbers[-1:]}"
    assert server.sql("SELECT count(*) FROM numbered WHERE content <> repeat(md5(number::text), 10)") == ["0"]
    assert server.sql("SELECT number FROM newest") == [str(len(numbers))]
    (money,) = server.sql(MONEY)
    assert len(set(money.split("|"))) == 1, money
    return len(numbers)


class Rounds:
    """Each on the arrays as the one before left them: the group is PAIR, and the database is at its P-VOLs."""

    def __init__(self, arrays: PairedArrays, site: Site, leg: Mapping[str, str]) -> None:
        self._arrays, self._site = arrays, site
        self._synchronous = leg == SYNC
        self._primary, self._secondary = arrays.near, arrays.far
        self.numbered = 0
        """Transactions that are there."""
        self.lost = 0
        """That were answered, of all rounds."""

    def round(self, chance: random.Random) -> str:
        """One of them; how it went."""
        arrays, site = self._arrays, self._site
        arrays.wait_for_pair(SECONDS)
        before = site.benchmarked()
        with site.load(self.numbered + 1) as load, site.mounted.abandoned_on_error():
            certain = self._wait_for(load, before + TRANSACTIONS)
            self._lose(chance)
        site.server.gone()

        said = arrays.tool("horctakeover", "--at", arrays.name(self._secondary), expected=Takeover.SVOL_SSUS)
        site.move(self._secondary)
        self.numbered = check_transactions(site.server)
        outcome = f"{self.numbered} of {load.committed} answered, {certain} for certain; {said.strip()}"
        assert (load.committed if self._synchronous else certain) <= self.numbered <= load.committed + 1, outcome
        assert site.benchmarked() >= before + TRANSACTIONS
        self.lost += max(0, load.committed - self.numbered)
        for step in chance.sample([site.check, self._fail_back], 2):
            step()
        return outcome

    def _wait_for(self, load: Workload, benchmarked: int) -> int:
        """Until enough is on the S-VOLs; as many numbered transactions, for certain."""
        load.wait_for(TRANSACTIONS)
        deadline = time.monotonic() + SECONDS
        while self._site.benchmarked() < benchmarked:
            assert time.monotonic() < deadline, "the benchmark does not go on"
            time.sleep(POLL_SECONDS)
        load.wait_for(1)
        certain = load.committed
        if not self._synchronous:
            self._arrays.tool("pairsyncwait", "-t", str(SECONDS))
        return certain

    def _lose(self, chance: random.Random) -> None:
        """The site of the P-VOLs at a random moment, its parts one right after the other. Asynchronous S-VOLs may have
        stood still before, because their array was down."""
        time.sleep(chance.random() * LIFE_SECONDS)
        late = not self._synchronous and chance.random() < 0.5
        if late:
            self._secondary.kill()
            time.sleep(chance.random() * LIFE_SECONDS)
        for lose in chance.sample([self._primary.kill, self._site.server.kill, self._site.mounted.abandon], 3):
            lose()
        if late:
            self._secondary.start()

    def _fail_back(self) -> None:
        """The lost array gets what it lacks, and is the next one that is taken over."""
        self._primary.start()
        self._arrays.tool("pairresync", "-swaps", "--at", self._arrays.name(self._secondary))
        self._primary, self._secondary = self._secondary, self._primary


@pytest.mark.parametrize("leg", [SYNC, ASYNC], ids=["sync", "async"])
def test_what_was_committed_is_there_after_every_takeover(tmp_path: Path, folder: Path, leg: Mapping[str, str]) -> None:
    with ExitStack() as stack:
        arrays = PairedArrays(stack, tmp_path, VOLUMES, list(VOLUMES), JOURNAL_BYTES, leg=leg)
        site = Site(stack, folder, tmp_path, arrays.near)
        site.server.initialise()
        site.server.start()
        site.server.sql(TABLES)
        site.server.run("pgbench", "--initialize", "--scale=2", "--quiet")
        arrays.tool("paircreate", "-vl", "-c", "15")
        rounds = Rounds(arrays, site, leg)
        for turn in range(TAKEOVERS):
            print(f"ARRAYD_SEED={SEED}, round {turn}: ", end="", flush=True)
            print(rounds.round(random.Random(f"{SEED} {turn}")), flush=True)
        print(f"{rounds.numbered} numbered transactions, {rounds.lost} were lost; {site.benchmarked()} others")
        site.server.stop()
