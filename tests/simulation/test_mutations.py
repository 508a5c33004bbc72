"""The checkers see: each fault that is made on purpose is found by a seed, and soon."""

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.run import run
from tests.simulation.world import replaced

SEEDS_MAX = 60
"""Most are found by one of the first three."""
BEGIN_AT = {
    "FUA does not sync": 4,
    "a flush does not sync": 22,
    "a failed sync is retried into success": 24,
    "a change is answered before it is committed": 3,
    "a sync takes another's end for its own": 14,
    "effect and answer are two commits": 24,
    "what the last connection has not answered stays so": 12,
    "what the other array never took is not sent again": 12,
    "what did not get through is reported as done": 9,
    "a lost link is not dialed again": 9,
}
"""Seeds that are known to find what others need not: so the test is short, and holds when they do not any more."""


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATIONS)
def test_seeds_find(name: str) -> None:
    first = BEGIN_AT.get(name, 1)
    with replaced(MUTATIONS[name]):
        assert any(run(seed).why for seed in range(first, first + SEEDS_MAX)), "no seed has found it"
