"""The checkers of pairs see: each of the faults of `pair_mutations.py` and `mirror_mutations.py` is found by
the seed that is known to find it. `scripts/simulate --mutations --seeds 200` looks for those seeds."""

import pytest

from tests.simulation.mirror_mutations import MIRROR_FIRST_FOUND, MIRROR_MUTATIONS
from tests.simulation.pair_mutations import FIRST_FOUND, PAIR_MUTATIONS
from tests.simulation.run import run
from tests.simulation.world import replaced


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIR_MUTATIONS)
def test_a_seed_of_pairs_finds(name: str) -> None:
    with replaced(PAIR_MUTATIONS[name]):
        assert run(FIRST_FOUND[name], "paired").why


@pytest.mark.slow
@pytest.mark.parametrize("name", MIRROR_MUTATIONS)
def test_a_seed_of_synchronous_pairs_finds(name: str) -> None:
    with replaced(MIRROR_MUTATIONS[name]):
        assert run(MIRROR_FIRST_FOUND[name], "mirrored").why


def test_of_each_it_is_known_which_seed_finds_it() -> None:
    assert MIRROR_FIRST_FOUND.keys() == MIRROR_MUTATIONS.keys()
    assert FIRST_FOUND.keys() == PAIR_MUTATIONS.keys()
