"""The checkers of pairs see: two of the faults of `pair_mutations.py`, each by the seed that is known to find it.
`scripts/simulate --scenario paired --mutations --seeds 120` looks for all of them."""

import pytest

from tests.simulation.pair_mutations import FIRST_FOUND, PAIR_MUTATIONS
from tests.simulation.run import run
from tests.simulation.world import replaced

QUICK = ("a record is not restored", "S-VOLs are not guarded")


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_seed_of_pairs_finds(name: str) -> None:
    with replaced(PAIR_MUTATIONS[name]):
        assert run(FIRST_FOUND[name], "paired").why


def test_of_each_it_is_known_which_seed_finds_it() -> None:
    assert FIRST_FOUND.keys() == PAIR_MUTATIONS.keys()
