"""Each fault of `pair_mutations.py` is found by one of some seeds."""

import pytest

from tests.simulation.pair_mutations import PAIR_MUTATIONS
from tests.simulation.run import run
from tests.simulation.world import replaced

SEEDS_MAX = 12


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIR_MUTATIONS)
def test_seeds_of_pairs_find(name: str) -> None:
    with replaced(PAIR_MUTATIONS[name]):
        assert any(run(seed, "paired").why for seed in range(1, 1 + SEEDS_MAX)), "no seed has found it"
