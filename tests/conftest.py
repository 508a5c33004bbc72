"""What holds for every test: how skips count, and how hypothesis searches."""

import gc
import os
import signal
from collections.abc import Generator

import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from tests.lab import daemon, forks

QUICK = os.environ.get("ARRAYD_QUICK") == "1"
"""Set by `scripts/test --quick`: hypothesis searches less far (see `tests/lab/search.py`)."""

hypothesis.settings.register_profile("arrayd", deadline=None, print_blob=True, max_examples=25 if QUICK else 100)
hypothesis.settings.load_profile("arrayd")
"""No deadline: how long an example takes depends on who else uses the machine."""

REQUIRE_ALL = os.environ.get("ARRAYD_REQUIRE_ALL") == "1"
"""Set by `scripts/test --require-all`: a part that is missing is a failure, not a skip."""

GUEST = "tests/guest"
"""The folder of the tests that share the guest."""

daemon.start_by(forks.start)

gc.disable()  # until all tests are collected

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As shells have it for what they start in the background: programs that tests start would take it over.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under REQUIRE_ALL turns a skip into a failure, but for tests marked `may_skip(reason)`."""
    report = yield
    expected = hasattr(report, "wasxfail") or item.get_closest_marker("may_skip") is not None
    if REQUIRE_ALL and report.skipped and not expected:
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Under REQUIRE_ALL a file that skips itself fails, too."""
    report = yield
    if REQUIRE_ALL and report.skipped:
        _fail(report)
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A `may_skip` says why; tests in `tests/guest` and `tests/external` are marked as what their folder says."""
    for item in items:
        for marker in item.iter_markers("may_skip"):
            if not (len(marker.args) == 1 and isinstance(marker.args[0], str) and marker.args[0]):
                raise pytest.UsageError(f"{item.nodeid}: may_skip needs a reason")
        folder = item.path.parent.name
        if folder in ("guest", "external"):
            item.add_marker(folder)


class FilesAndOneGuest(LoadFileScheduling):
    """Tests of a file stay together, and so do those of all files that use the guest: to boot it takes long."""

    def _split_scope(self, nodeid: str) -> str:
        return GUEST if nodeid.startswith(f"{GUEST}/") else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """What `--dist loadfile` means here."""
    return FilesAndOneGuest(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_unconfigure() -> None:
    """What was started for all tests ends."""
    forks.end()


def pytest_collection_finish() -> None:
    """Modules, tests and fixtures stay to the end: collections that look at them again and again take a tenth of the
    time of a run."""
    gc.enable()
    gc.freeze()


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{reason} (a skip is a failure here: every part is required)"
