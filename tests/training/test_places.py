"""Losses of samples in places."""

import torch

from gainfinder.inference import Targets
from gainfinder.losses import TransferLoss
from gainfinder.training.places import losses_in_places

N, P, C = 3, 4, 5
GENERATOR = torch.Generator().manual_seed(0)
STUDENT, INITIAL, TEACHER = (torch.randn(N, P, C, generator=GENERATOR) for _ in range(3))
READ = torch.tensor([[True, True, True, True], [True, False, False, False], [True, True, True, False]])


def targets(teacher: torch.Tensor = TEACHER, usable: torch.Tensor = READ) -> Targets:
    places = teacher.shape[1]
    logits = torch.stack([INITIAL[:, :places], teacher], dim=-2)
    return Targets(logits_NMC=logits, log_confidence_NM=None, usable_NP=usable[:, :places])


def test_a_samples_loss_is_the_mean_over_its_places() -> None:
    criterion = TransferLoss("kl-dp-u")
    found = losses_in_places(criterion, STUDENT, READ, targets(), None)
    alone = [
        criterion.losses(STUDENT[n, :count], torch.stack([INITIAL, TEACHER], dim=-2)[n, :count])
        for n, count in enumerate((4, 1, 3))
    ]
    assert torch.allclose(found.values, torch.stack([one.values.mean() for one in alone]))
    assert torch.allclose(found.weights, torch.stack([one.weights.float().mean(dim=0) for one in alone]))


def test_places_that_one_model_has_not_read_do_not_count() -> None:
    criterion = TransferLoss("kl-dp-u")
    whole = losses_in_places(criterion, STUDENT[:, :2], READ[:, :2], targets(TEACHER[:, :2]), None)
    for cut in (
        losses_in_places(criterion, STUDENT, READ, targets(TEACHER[:, :2]), None),  # the teacher reads less
        losses_in_places(criterion, STUDENT[:, :2], READ[:, :2], targets(), None),  # the student does
        losses_in_places(criterion, STUDENT, READ, targets(usable=READ & (torch.arange(P) < 2)), None),
    ):
        assert torch.allclose(cut.values, whole.values)


def test_places_without_a_label_do_not_count_where_labels_are_read() -> None:
    criterion = TransferLoss("kl-dp")
    target_NP = torch.tensor([[0, -1, 2], [1, -1, -1], [-1, -1, -1]])  # of one place less than the models have
    found = losses_in_places(criterion, STUDENT, READ, targets(), target_NP)
    logits = torch.stack([INITIAL, TEACHER], dim=-2)
    first = criterion.losses(STUDENT[0, [0, 2]], logits[0, [0, 2]], torch.tensor([0, 2])).values.mean()
    second = criterion.losses(STUDENT[1, :1], logits[1, :1], torch.tensor([1])).values.mean()
    assert torch.allclose(found.values, torch.stack([first, second, torch.zeros(())]))


def test_labels_alone_are_learned_in_all_places() -> None:
    nothing = Targets(logits_NMC=torch.zeros(N, 1, C), log_confidence_NM=None)
    target_NP = torch.tensor([[0, 1, 2, 3], [1, 0, 0, 0], [2, 2, -1, 0]])
    found = losses_in_places(TransferLoss("xe"), STUDENT, READ, nothing, target_NP)
    counted = [[0, 1, 2, 3], [0], [0, 1]]  # read, and with a label
    alone = [torch.nn.functional.cross_entropy(STUDENT[n, at], target_NP[n, at]) for n, at in enumerate(counted)]
    assert torch.allclose(found.values, torch.stack(alone))
