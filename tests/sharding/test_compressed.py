"""Training on compressed weights, on all devices of one process: the same tests as on one."""

from tests.training.test_compressed import (  # noqa: F401
    shallow,
    test_a_run_moves_what_trains_and_holds_the_rest,
    test_goes_on_where_it_stopped,
    variables,
)
