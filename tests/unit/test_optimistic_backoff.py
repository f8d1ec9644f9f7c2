"""A guess that fails is made more and more seldom, and again at once when it holds."""

from itertools import pairwise

from worker.ledger.service import BACKOFF_BATCHES_MAX, OptimisticBackoff


def tries(guess: OptimisticBackoff, batches: int, *, success: bool) -> list[int]:
    """Return in which of so many batches the guess was made, always with the same luck."""
    made = []
    for batch in range(batches):
        if guess.should_try():
            guess.record(success=success)
            made.append(batch)
    return made


def test_guess_that_holds_is_made_for_every_batch() -> None:
    assert tries(OptimisticBackoff(), 5, success=True) == [0, 1, 2, 3, 4]


def test_guess_that_keeps_failing_is_made_half_as_often_each_time_down_to_a_bound() -> None:
    made = tries(OptimisticBackoff(), 1_000, success=False)
    passed_over = [after - before - 1 for before, after in pairwise(made)]
    assert passed_over[:8] == [1, 2, 4, 8, 16, 32, 64, 64]
    assert max(passed_over) == BACKOFF_BATCHES_MAX


def test_guess_that_holds_again_is_forgiven() -> None:
    guess = OptimisticBackoff()
    tries(guess, 100, success=False)
    while not guess.should_try():
        pass
    guess.record(success=True)
    assert tries(guess, 3, success=False) == [0, 2]
