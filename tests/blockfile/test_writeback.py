"""The bound on what is in the page cache and not on the disk: grants, cleaning, and accounts that come out even."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from arrayd.blockfile import Writeback
from arrayd.blockfile.writeback import CLEANINGS_MAX, GRANT_BYTES, LIMIT_MAX, LIMIT_MIN, Share

MIB = 1024 * 1024


class Cleaner:
    """A file that is asked to clean, and does so when the test says."""

    def __init__(self, budget: Writeback) -> None:
        self.asked: list[int] = []
        self.ends: list[asyncio.Future[int | OSError]] = []
        self.share: Share = budget.join(self.clean)

    def clean(self, keep: int) -> asyncio.Future[int | OSError]:
        self.asked.append(keep)
        self.ends.append(asyncio.get_running_loop().create_future())
        return self.ends[-1]

    async def end(self, dirty: int = 0) -> None:
        self.share.cleaned_to(self.share.granted - dirty)
        self.ends.pop(0).set_result(dirty)
        await asyncio.sleep(0)


async def test_grants_end_at_the_limit_and_begin_again() -> None:
    budget = Writeback(4 * MIB)
    file = Cleaner(budget)
    granted = [file.share.take(4096) for _ in range(5)]
    assert granted == [GRANT_BYTES] * 4 + [0]
    file.share.cleaned_to(file.share.granted)
    assert file.share.take(4096) == GRANT_BYTES


async def test_a_write_larger_than_a_grant_gets_all_it_needs() -> None:
    budget = Writeback(8 * MIB)
    assert Cleaner(budget).share.take(3 * MIB) == 3 * MIB
    assert budget.dirty == 3 * MIB


async def test_all_files_share_one_limit() -> None:
    budget = Writeback(2 * MIB)
    first, second = Cleaner(budget), Cleaner(budget)
    assert first.share.take(1) == GRANT_BYTES
    assert second.share.take(1) == GRANT_BYTES
    assert not first.share.take(1)
    second.share.leave()
    assert first.share.take(1) == GRANT_BYTES


async def test_the_dirtiest_file_is_cleaned_and_may_keep_what_fits() -> None:
    budget = Writeback(10 * MIB)
    small, large = Cleaner(budget), Cleaner(budget)
    small.share.take(2 * MIB)
    large.share.take(6 * MIB)
    assert (small.asked, large.asked) == ([], [])
    large.share.take(1)
    assert (small.asked, large.asked) == ([], [5 * MIB])


async def test_few_files_are_cleaned_at_once_and_each_by_one_thread() -> None:
    budget = Writeback(10 * MIB)
    files = [Cleaner(budget) for _ in range(CLEANINGS_MAX + 2)]
    for file in files:
        file.share.charge(9 * MIB)
        file.share.charge(MIB)
    assert sum(len(file.asked) for file in files) == CLEANINGS_MAX
    assert max(len(file.asked) for file in files) == 1
    await files[0].end()
    files[-1].share.charge(1)
    assert sum(len(file.asked) for file in files) == CLEANINGS_MAX + 1


async def test_what_is_charged_counts_beyond_the_limit() -> None:
    budget = Writeback(MIB)
    file = Cleaner(budget)
    file.share.charge(5 * MIB)
    assert budget.dirty == 5 * MIB
    assert not file.share.take(1)


@given(steps=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(("take", "charge", "clean", "leave")),
                                st.integers(0, 3 * MIB)), max_size=60))  # fmt: skip
def test_the_sum_is_the_sum_of_the_shares(steps: list[tuple[int, str, int]]) -> None:
    async def scenario() -> None:
        budget = Writeback(6 * MIB)
        files = [Cleaner(budget) for _ in range(3)]
        for which, what, amount in steps:
            share = files[which].share
            before = budget.dirty
            if what == "take":
                granted = share.take(amount)
                assert granted in (0, max(amount, GRANT_BYTES))
                assert not granted or budget.dirty <= budget.limit
            elif what == "charge":
                share.charge(amount)
                assert budget.dirty == before + amount
            elif what == "clean":
                share.cleaned_to(share.granted - amount)
                assert budget.dirty <= before
            else:
                share.leave()
                assert share.dirty == 0
            assert budget.dirty == sum(file.share.dirty for file in files)
            assert all(file.share.dirty >= 0 for file in files)

    asyncio.run(scenario())


def test_the_machine_gives_a_limit_within_ours() -> None:
    assert LIMIT_MIN <= Writeback.for_this_machine().limit <= LIMIT_MAX
