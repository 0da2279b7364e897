"""Every image counts once, on several devices, too, among which no batch here can be shared evenly."""

import pytest

from tests.training.test_evaluation import BATCH_SIZES, check_batches_are_whole, check_counts_and_loss


@pytest.mark.parametrize("devices", [1, 3, 4])
@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_counts_and_loss(devices, batch_size):
    check_counts_and_loss(batch_size, devices)


@pytest.mark.parametrize("devices", [1, 4])
def test_the_filling_does_not_change_what_is_computed_over_the_batch(devices):
    check_batches_are_whole(devices)
