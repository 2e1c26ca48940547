import numpy as np
import pytest

from src.training.config import AugmentConfig
from src.training.prefetch import Prefetcher
from tests.training.test_batches import equal, make_maker, make_table

CONFIG = AugmentConfig(brightness_contrast_probability=1, brightness=0.5, mixup_alpha=0.5)


@pytest.fixture
def maker():
    return make_maker(make_table(22), augment=CONFIG, shuffle=True, seed=1)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_batches_are_those_of_the_maker(maker, workers):
    prefetcher = Prefetcher(maker.make, len(maker), workers, ahead=4)
    for epoch in (0, 1, 5):
        prefetcher.start(epoch)
        for index in range(len(maker)):
            assert equal(prefetcher.get(epoch, index), maker.make(epoch, index))
    prefetcher.close()


def test_any_order_and_a_change_of_epoch_in_the_middle(maker):
    prefetcher = Prefetcher(maker.make, len(maker), 2, ahead=3)
    for epoch, index in [(0, 0), (0, 1), (0, 1), (0, 5), (0, 2), (3, 0), (0, 3), (3, 1), (3, 0), (3, 7)]:
        assert equal(prefetcher.get(epoch, index), maker.make(epoch, index))
    prefetcher.close()


def test_it_reads_ahead_but_not_beyond_the_epoch(maker):
    asked = []

    def make(epoch, index):
        asked.append((epoch, index))
        return maker.make(epoch, index)

    prefetcher = Prefetcher(make, 4, 1, ahead=2)
    prefetcher.get(0, 0)
    prefetcher.close()
    assert asked[0] == (0, 0)
    assert set(asked) <= {(0, 0), (0, 1), (0, 2)}
    asked.clear()
    prefetcher.get(0, 2)
    prefetcher.get(0, 3)
    prefetcher.close()
    assert set(asked) == {(0, 2), (0, 3)}


def test_errors_of_the_maker_arrive():
    def make(epoch, index):
        raise MemoryError("no memory")

    prefetcher = Prefetcher(make, 4, 2, ahead=2)
    with pytest.raises(MemoryError, match="no memory"):
        prefetcher.get(0, 0)
    prefetcher.close()


def test_threads_share_one_maker_without_mixing_epochs(maker):
    """The maker remembers the last order of rows; two threads that ask for two epochs must each get theirs."""
    from concurrent.futures import ThreadPoolExecutor

    wanted = {epoch: np.concatenate([maker.rows(epoch, i) for i in range(6)]) for epoch in range(4)}
    with ThreadPoolExecutor(4) as pool:
        for _ in range(50):
            orders = pool.map(lambda epoch: np.concatenate([maker.rows(epoch, i) for i in range(6)]), range(4))
            for epoch, order in enumerate(orders):
                np.testing.assert_array_equal(order, wanted[epoch])
