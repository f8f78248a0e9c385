"""Which recipe wins, and what trials may cost."""

from types import SimpleNamespace
from typing import Any

import pytest

from gainfinder.config import Recipe
from gainfinder.config.recipe import recipes
from gainfinder.results import Trial
from gainfinder.runs.trials import finalists, preferred, trial_steps, trials_share


def trial(lr: float, loss: float | None, *, steps: int = 50) -> Trial:
    return Trial(round=1, optimizer="adamw", lr=lr, steps=steps, guard_loss=loss)


def prepared(*, images: int, epochs: int, batch_size: int = 128, tried: int = 4) -> Any:
    settings = SimpleNamespace(epochs=epochs, batch_size=batch_size, recipes=recipes("adamw", batch_size=128)[:tried])
    return SimpleNamespace(settings=settings, steps_per_epoch=-(-images // batch_size))


@pytest.mark.parametrize("images", [1, 100, 128, 1_000, 10_000, 1_281_167])
@pytest.mark.parametrize("epochs", [1, 5, 100])
@pytest.mark.parametrize("tried", [2, 3, 4])
def test_all_trials_take_a_quarter_of_the_run_at_most(images: int, epochs: int, tried: int) -> None:
    run = prepared(images=images, epochs=epochs, tried=tried)
    assert 0 <= trials_share(run) <= 0.25
    rounds = trial_steps(run)
    assert rounds == () or rounds[1] == 2 * rounds[0] > 0


def test_a_run_with_room_for_a_few_steps_has_no_trials() -> None:
    assert trial_steps(prepared(images=1_280, epochs=31)) == ()
    assert trial_steps(prepared(images=1_280, epochs=32)) == (10, 20)


def test_a_single_candidate_needs_no_trial() -> None:
    assert trial_steps(prepared(images=10_000, epochs=40, tried=1)) == ()


def test_the_best_goes_on_with_the_next_higher_rate() -> None:
    tried = [trial(1e-4, 0.8), trial(3e-4, 0.7), trial(1e-3, 0.9), trial(3e-3, None)]
    found = finalists(tried, loss_before=0.85)
    assert found == (Recipe(optimizer="adamw", lr=3e-4), Recipe(optimizer="adamw", lr=1e-3))
    found = finalists([trial(1e-4, 0.8), trial(3e-3, 0.7)], loss_before=0.85)
    assert found == (Recipe(optimizer="adamw", lr=1e-4), Recipe(optimizer="adamw", lr=3e-3))


@pytest.mark.parametrize(
    ("losses", "before", "lr"),
    [
        ({1e-4: 0.5, 3e-4: 0.7}, 1.0, 3e-4),
        ({1e-4: 0.5, 3e-4: 0.7}, 0.7, 3e-4),  # as good as before
        ({1e-4: 0.5, 3e-4: 0.7}, 0.69, 1e-4),
        ({1e-4: 0.5, 3e-4: None}, 1.0, 1e-4),  # it led nowhere
        ({1e-4: 1.1, 3e-4: 1.2}, 1.0, 1e-4),  # none recovered: the least harm
        ({1e-4: 0.9, 3e-4: 0.8, 1e-3: 1.2}, 1.0, 3e-4),
    ],
)
def test_the_highest_rate_wins_that_leaves_the_student_no_worse(
    losses: dict[float, float | None], before: float, lr: float
) -> None:
    assert preferred([trial(*one) for one in losses.items()], loss_before=before).lr == lr


def test_in_a_few_steps_all_rates_recover_and_the_lowest_loss_wins() -> None:
    tried = [trial(lr, loss, steps=49) for lr, loss in {1e-4: 0.95, 3e-4: 0.9, 1e-3: 0.93, 3e-3: 0.99}.items()]
    assert preferred(tried, loss_before=1.0).lr == 3e-4
    assert [one.lr for one in finalists(tried, loss_before=1.0)] == [3e-4, 1e-3]


def test_a_trial_of_a_long_run_is_no_longer_for_it() -> None:
    """A run of ten times the steps finds its rate with the same trials."""
    assert (
        trial_steps(prepared(images=10_000, epochs=100))
        == trial_steps(prepared(images=100_000, epochs=100))
        == (100, 200)
    )


def test_a_trial_that_led_nowhere_is_never_preferred_to_one_that_did() -> None:
    tried = [trial(1e-4, 0.9), trial(3e-4, 0.8), trial(1e-3, None)]
    assert preferred(tried, loss_before=None).lr == 3e-4
    assert preferred(tried, loss_before=0.1).lr == 3e-4
    assert preferred([trial(1e-4, None), trial(3e-4, None)], loss_before=None).lr == 1e-4
