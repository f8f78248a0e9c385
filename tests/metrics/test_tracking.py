"""Rank correlation and slope as scipy has them, over all pairs and each student's."""

import pytest
import torch
from scipy.stats import linregress, spearmanr

from gainfinder.metrics import PredictedClasses, rank_correlation, scan_predictions
from gainfinder.metrics.tracking import slope
from gainfinder.predictions import Predictions

SEED = torch.Generator().manual_seed(0)


@pytest.mark.parametrize("values", [4, 1000])  # many ties, and hardly any
def test_as_scipy(values: int) -> None:
    x = torch.randint(0, values, (50,), generator=SEED).double()
    y = x + torch.randint(0, values, (50,), generator=SEED)
    assert rank_correlation(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
    assert slope(x, y) == pytest.approx(linregress(x, y).slope, abs=1e-12)


def test_too_little_to_correlate() -> None:
    two, same, varied = torch.tensor([1.0, 2.0]), torch.ones(5), torch.arange(5.0)
    for found in (rank_correlation, slope):
        assert found(two, two) is None and found(same, varied) is None and found(varied, same) is None
        assert found(torch.empty(0), torch.empty(0)) is None


def test_a_scan_says_how_well_stand_ins_do() -> None:
    n, c = 200, 4
    target = torch.randint(0, c, (n,), generator=SEED)
    models = []
    for number in range(5):
        logits = torch.randn(n, c, generator=SEED)
        logits[torch.arange(n), target] += number / 2
        ids = tuple(map(str, range(n)))
        models.append(PredictedClasses.of(Predictions(model=f"m{number}", ids=ids, logits=logits, target=target)))
    scan = scan_predictions(models, num_classes=c)
    found = {one.stand_in: one for one in scan.tracking}
    assert list(found) == [
        "disagreement", "surer_disagreement", "estimated_positive_flips", "estimated_delta_acc_pp", "agreement",
        "strength", "estimated_accuracy",
    ]  # fmt: skip
    for key, one in found.items():
        rows = scan.pairs if one.students else scan.models
        x, y = ([getattr(row, name) for row in rows] for name in (key, one.measure))
        assert one.spearman == pytest.approx(spearmanr(x, y).statistic) and one.count == len(rows)
        assert one.slope == pytest.approx(linregress(x, y).slope, rel=1e-6)
        for student in one.students:
            own = [row for row in scan.pairs if row.student == student.student]
            x, y = ([getattr(row, name) for row in own] for name in (key, one.measure))
            assert student.spearman == pytest.approx(spearmanr(x, y).statistic)
        assert {student.student for student in one.students} in (set(), {f"m{number}" for number in range(5)})
    assert found["estimated_accuracy"].spearman == 1
