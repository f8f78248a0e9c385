"""Short trials that choose the learning rate: none is right for all architectures.

Every candidate of the first round trains a copy of the student for the same few steps, its rate falling to 0, and is
measured by the run's loss on guard images. The best and the next higher rate (of the highest the next lower) go on to a
second round of twice as many steps, from the start (successive halving, Jamieson and Talwalkar, AISTATS 2016, with two
rounds).

By the lowest loss, short trials would choose rates that are too low for the run: a high rate first disturbs the student
and repays that later. So the highest is best with which the student has recovered within the trial: its loss is not
above the initial student's. It goes farthest in a run that is many times as long. In trials of a few steps, those of a
short run, all rates leave the student about where it was; there the lowest loss decides. Optimisers are not compared:
the loss of a short trial does not tell which of them goes farther (benchmarks/moving/README.md).
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

from ..config import Recipe, with_recipe
from ..errors import Diverged, NotFinite
from ..files import write_json_lines
from ..losses import Temperatures
from ..results import Trial
from ..training import train_steps
from .bank import TargetModels
from .context import RunContext
from .frozen import FrozenPredictions, load_trained
from .guard_loss import GuardLoss
from .prepare import PreparedTransfer
from .trainers import make_trainer

_log = logging.getLogger("gainfinder")

SHARE = 0.25
"""Largest share of the run's steps that the trials may take."""
FEWEST_STEPS = 10
"""Steps of a trial of the first round at least: shorter ones tell nothing, and a run with no room for them has none."""
MOST_STEPS = 100
"""Steps of a trial of the first round at most: of a long run the trials take a smaller share."""
FEW_STEPS = 50
"""Trials of fewer steps do not show whether a student recovers from a high rate."""
FINALISTS = 2
"""Candidates of the second round at most; it is twice as long."""


def trial_steps(prepared: PreparedTransfer) -> tuple[int, ...]:
    """Steps of a trial in each round; none where nothing is left to choose.

    With k candidates both rounds take (k + 2 · 2) times the first one's steps, a quarter of the run's at most.
    """
    candidates = prepared.settings.recipes
    if len(candidates) < 2:
        return ()
    first = min(MOST_STEPS, int(SHARE * _run_steps(prepared) / (len(candidates) + 2 * FINALISTS)))
    return (first, 2 * first) if first >= FEWEST_STEPS else ()


def trials_share(prepared: PreparedTransfer) -> float:
    """Steps of all trials as a share of the run's own, at most."""
    rounds = trial_steps(prepared)
    if not rounds:
        return 0.0
    return (rounds[0] * len(prepared.settings.recipes) + rounds[1] * FINALISTS) / _run_steps(prepared)


def trials_at_most(prepared: PreparedTransfer) -> int:
    """Number of trials of all rounds, at most; 0 where there are none."""
    return len(prepared.settings.recipes) + FINALISTS if trial_steps(prepared) else 0


def _run_steps(prepared: PreparedTransfer) -> int:
    """Steps of the run itself, at most."""
    return prepared.settings.epochs * prepared.steps_per_epoch


def choose_recipe(
    run: RunContext,
    held_out: GuardLoss | None,
    targets: TargetModels,
    probes: FrozenPredictions | None,
    *,
    temperatures: Temperatures | None,
) -> tuple[Recipe | None, tuple[Trial, ...]]:
    """Try the candidates; trials that a killed run finished are read, not repeated.

    Args:
        run: the run.
        held_out: the loss on guard images; None where it cannot be measured: then nothing is tried.
        targets: the frozen models as sources of logits.
        probes: predictions of the frozen models for the guard images.
        temperatures: each frozen model's, for calibrated methods.

    Returns:
        The recipe that is chosen, None where nothing was tried, and every trial.
    """
    rounds = trial_steps(run.prepared)
    if held_out is None or probes is None or not rounds:
        return None, ()
    loss_before = held_out.of_rows(probes.before)
    finished = run.folder.read_trials()
    trials: list[Trial] = []
    alive: Sequence[Recipe] = run.prepared.settings.recipes
    for number, steps in enumerate(rounds, start=1):
        of_round = []
        for recipe in alive:
            trial = Trial(round=number, optimizer=recipe.optimizer, lr=recipe.lr, steps=steps)
            found = next((one for one in finished if one.is_of(trial)), None)
            if found is None:
                learner = _Learner(run, recipe, targets, temperatures)
                found = trial.model_copy(update={"guard_loss": learner.loss(steps, held_out)})
            of_round.append(found)
            trials.append(found)
            if run.prepared.is_main:
                run.folder.check_in_place()
                write_json_lines(run.folder.trials, [one.to_dict() for one in trials], within=run.folder.path)
                run.note_worked()
        alive = finalists(of_round, loss_before=loss_before)
    return preferred(of_round, loss_before=loss_before), tuple(trials)


def finalists(trials: Sequence[Trial], *, loss_before: float | None) -> tuple[Recipe, ...]:
    """The best recipe, and the next higher rate, which may only need more steps; of the highest rate the next lower."""
    recipes = sorted(map(_recipe, trials), key=lambda one: one.lr)
    best = recipes.index(preferred(trials, loss_before=loss_before))
    first = min(best, max(0, len(recipes) - FINALISTS))
    return tuple(recipes[first : first + FINALISTS])


def preferred(trials: Sequence[Trial], *, loss_before: float | None) -> Recipe:
    """The highest rate with which the student has recovered, or that of the lowest loss; see the module.

    Args:
        trials: trials of the same optimiser and number of steps.
        loss_before: the initial student's loss on the same images; None where it is not finite, which none is above.

    Returns:
        Where no trial has recovered, the recipe of the lowest loss. Equal losses go to the first, the lowest rate where
        none led anywhere.

    >>> losses = {1e-4: 0.5, 3e-4: 0.6, 1e-3: 0.7}
    >>> tried = [Trial(round=2, optimizer="adamw", lr=lr, steps=90, guard_loss=loss) for lr, loss in losses.items()]
    >>> preferred(tried, loss_before=0.6).lr, preferred(tried, loss_before=0.4).lr
    (0.0003, 0.0001)
    """
    bound = math.inf if loss_before is None else loss_before
    recovered = [
        one for one in trials if one.steps >= FEW_STEPS and one.guard_loss is not None and one.guard_loss <= bound
    ]
    return _recipe(max(recovered, key=lambda one: one.lr) if recovered else min(trials, key=_loss))


def _loss(trial: Trial) -> float:
    return math.inf if trial.guard_loss is None else trial.guard_loss


def _recipe(trial: Trial) -> Recipe:
    return Recipe(optimizer=trial.optimizer, lr=trial.lr)


class _Learner:
    """A copy of the student that learns by one recipe."""

    def __init__(
        self,
        run: RunContext,
        recipe: Recipe,
        targets: TargetModels,
        temperatures: Temperatures | None,
    ) -> None:
        self.run, self.name, self.targets = run, str(recipe), targets
        settings = with_recipe(run.prepared.settings, recipe)
        # Its rate falls to 0, and there is no average: a trial is too short for one.
        settings = replace(settings, schedule="linear", lr_warmup=0.1, ema_decay=0.0)
        self.prepared = replace(run.prepared, settings=settings)
        self.trainer = make_trainer(self.prepared, targets.models, temperatures=temperatures, choice_n=targets.choice_n)

    def loss(self, steps: int, held_out: GuardLoss) -> float | None:
        """The loss on guard images after so many steps; None where training leads nowhere."""
        prepared, callback = self.prepared, self.run.callback
        if prepared.views.fits:
            callback.stage(f"reading the transfer {prepared.train_images.noun}s", len(prepared.train_images))
            prepared.views.load(callback.advance)
        self.targets.prepare(range(-(-steps // prepared.steps_per_epoch)))
        callback.stage(f"trial of {self.name}", steps * prepared.settings.batch_size)
        student = prepared.student.copied()
        try:
            train_steps(self.trainer, prepared.views, steps, on_images=callback.advance)
            load_trained(prepared, student, self.trainer.weights())
            return held_out.of(self.run.predict(student, held_out.images, f"measuring the trial of {self.name}"))
        except (Diverged, NotFinite) as error:  # a frozen model's logits are not: the run says so, too
            _log.info("trial of %s: %s", self.name, error)
            return None
        finally:
            prepared.accelerator.free_memory()
