"""Softmax regression: compared with scikit-learn's, and the search for a decay with a plain loop."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import gainfinder.heads.softmax
from gainfinder.heads import DECAYS, LinearHead, TriedDecay, best_decay, choose_decay, fit_softmax


def samples(count: int = 120, *, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Features of uneven spread and place, the last of them constant, and labels of three classes that overlap."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(count, 6, generator=draw, dtype=torch.float64)
    y = (x[:, :3] + torch.randn(count, 3, generator=draw, dtype=torch.float64)).argmax(dim=1)
    spread = torch.tensor([1.0, 10.0, 0.1, 3.0, 1.0, 0.0], dtype=torch.float64)
    return (x * spread + torch.tensor([0.0, 5.0, 1.0, -2.0, 0.0, 4.0])).to(dtype), y


def log_probs(head: LinearHead, x: Tensor) -> Tensor:
    return head.logits(x).log_softmax(dim=1)


@pytest.mark.parametrize("decay", [1.0, 1e-2, 1e-4])
def test_it_is_scikit_learns_regression_on_standardised_features(decay: float) -> None:
    x, y = samples()
    spread = x.std(dim=0, correction=0)
    u = torch.where(spread > 1e-9, (x - x.mean(dim=0)) / spread, 0.0).numpy()
    theirs = LogisticRegression(C=1 / (len(x) * decay), tol=1e-10, max_iter=10_000).fit(u, y.numpy())
    head = fit_softmax(x, y, num_classes=3, weight_decay=decay)
    np.testing.assert_allclose(log_probs(head, x).numpy(), theirs.predict_log_proba(u), atol=1e-3)
    single = fit_softmax(x.float(), y, num_classes=3, weight_decay=decay)
    torch.testing.assert_close(log_probs(single, x.float()).double(), log_probs(head, x), atol=5e-3, rtol=0)


def test_without_a_bias_features_are_scaled_and_not_moved() -> None:
    x, y = samples()
    u = (x / x.square().mean(dim=0).sqrt()).numpy()
    theirs = LogisticRegression(C=1 / (len(x) * 0.01), tol=1e-10, max_iter=10_000, fit_intercept=False).fit(
        u, y.numpy()
    )
    head = fit_softmax(x, y, num_classes=3, weight_decay=0.01, bias=False)
    assert head.bias_C is None
    np.testing.assert_allclose(log_probs(head, x).numpy(), theirs.predict_log_proba(u), atol=1e-3)


def test_where_it_begins_does_not_matter() -> None:
    x, y = samples()
    blank = fit_softmax(x, y, num_classes=3, weight_decay=0.01)
    far = LinearHead(weight_CD=torch.randn(3, 6).double(), bias_C=torch.randn(3).double(), iterations=0)
    torch.testing.assert_close(
        log_probs(fit_softmax(x, y, num_classes=3, weight_decay=0.01, start=far), x), log_probs(blank, x),
        atol=1e-3, rtol=0,
    )  # fmt: skip
    again = fit_softmax(x, y, num_classes=3, weight_decay=0.01, start=blank)
    assert again.iterations <= 2 < blank.iterations


def test_what_is_computed_in_parts_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = samples()
    whole = fit_softmax(x, y, num_classes=3, weight_decay=0.01)
    monkeypatch.setattr(gainfinder.heads.softmax, "_LOGITS_AT_ONCE", 3 * 7)
    torch.testing.assert_close(log_probs(fit_softmax(x, y, num_classes=3, weight_decay=0.01), x), log_probs(whole, x))


def test_a_constant_feature_has_no_weight_and_an_empty_class_is_never_predicted() -> None:
    x, y = samples(dtype=torch.float32)
    head = fit_softmax(x, y, num_classes=5, weight_decay=1e-3)
    assert head.weight_CD.shape == (5, 6) and not head.weight_CD[:, 5].any() and head.weight_CD.isfinite().all()
    assert head.bias_C is not None and head.bias_C.isfinite().all()
    assert not torch.isin(head.logits(100 * x).argmax(dim=1), torch.tensor([3, 4])).any()


def test_the_decay_is_that_of_least_loss_on_what_is_set_apart() -> None:
    x, y = samples(60)
    sets = [torch.arange(0, 60, 3), torch.arange(1, 60, 4)]
    tried = choose_decay(x, y, sets, num_classes=3)
    expected = []
    for decay in DECAYS:
        losses = []
        for rows in sets:
            others = torch.tensor([i for i in range(60) if i not in rows.tolist()])
            head = fit_softmax(x[others], y[others], num_classes=3, weight_decay=decay)
            losses += nn.functional.cross_entropy(head.logits(x[rows]), y[rows], reduction="none").tolist()
        expected.append(sum(losses) / len(losses))
    best = int(np.argmin(expected))
    assert 0 < best < len(DECAYS) - 3 and best_decay(tried).weight_decay == DECAYS[best]
    assert len(tried) == best + 3, "the search ends after two that are worse"
    assert [one.weight_decay for one in tried] == [*DECAYS[: len(tried)]]
    assert [one.log_loss for one in tried] == pytest.approx(expected[: len(tried)], abs=1e-4)


def test_of_equal_losses_the_stronger_decay_wins() -> None:
    one = TriedDecay(weight_decay=1.0, log_loss=0.5)
    assert best_decay([one, replace(one, weight_decay=0.1), replace(one, log_loss=0.6)]) is one
