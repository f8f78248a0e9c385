"""Losses on features (N, D): they align how student and teacher represent images, whatever their sizes.

Source: appendix A.2 of "Fantastic Gains and Where to Find Them" (arXiv 2310.17653), and for CRD "Contrastive
Representation Distillation" (Tian, Krishnan, Isola, ICLR 2020, arXiv 1910.10699) with its public code.
Shapes: N samples of a batch, n samples of the transfer set, D and E features of student and teacher, F of the common
space, K negatives.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ..errors import SettingsError
from .objectives import Reduction, kl_divergence


def cd_loss(student_features_ND: Tensor, teacher_features_NE: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """KL divergence of the similarities within a batch, by the student's features, from those by the teacher's (Eq. 6).

        1/n · Σ_i Σ_j p_ij · (log p_ij − log q_ij),  p = σ(S_t), q = σ(S_s) by row,  S_ij = cos(f_i, f_j)

    Departures: the paper writes the student first; this is KL(teacher ‖ student), the direction of Eq. 1 here. Our
    reading: the mean over the batch. As in the paper, j = i is among the similarities, and they have no temperature.

    Args:
        student_features_ND: floating point (N, D).
        teacher_features_NE: floating point (N, E), detached here; E may differ from D.
        reduction: "mean" over the N samples, "sum" over them, or "none".

    Returns:
        A scalar, or one value a sample (N,) for "none", in the dtype of the student's features; half precision is
        computed in float32. One sample has nothing to be compared with: 0. With N = 0 the mean is 0.

    The cosine with a feature vector of zeros is 0, and its gradient finite.

    Raises:
        ValueError: a wrong shape or dtype, or an unknown reduction.

    To the teacher the two images are alike, so p = (1/2, 1/2); to the student they are orthogonal, so
    q = (e, 1) / (e + 1) and the divergence is ln(1/2) − (ln q_1 + ln q_2) / 2 = −ln 2 + ln(e + 1) − 1/2:

    >>> round(cd_loss(torch.eye(2), torch.ones(2, 3)).item(), 4)
    0.1201
    >>> round(math.log(math.e + 1) - math.log(2) - 0.5, 4)
    0.1201
    """
    _check_features(student_features_ND, teacher_features_NE)
    if len(student_features_ND) == 0:
        return student_features_ND.sum(dim=1 if reduction == "none" else None)
    similarity_NN = _similarities(student_features_ND)
    target_NN = _similarities(teacher_features_NE.detach())
    return kl_divergence(similarity_NN, target_NN, reduction=reduction).to(student_features_ND.dtype)


class ContrastiveMemory(nn.Module):
    """Contrastive representation distillation (CRD): its loss, projections and memories (Eq. 7).

    Student and teacher features are projected linearly to a common space and normalised to length 1; two memories keep
    the latest projections of every sample of the transfer set, the student's and the teacher's. An anchor (a sample's
    projection in this batch) is discriminated from noise by its dot products with the *other* model's memory, of the
    sample itself (the positive) and of K samples of other classes (the negatives):

        −log h(v, m_i) − Σ_{k=1…K} log(1 − h(v, m_k)),  h(v, m) = e^{v·m/τ} / (e^{v·m/τ} + Z · K/n)

    summed over both directions: student anchors v with the teacher's memory m, teacher anchors with the student's. Z
    is n times the mean of e^{v·m/τ} over the first batch, for each direction, and then stays as it is. After the loss
    the batch's rows of the memories become λ · old + (1 − λ) · new, of length 1 again.

    The loss follows Tian et al.'s public code, which Eq. 7 leaves open: the memories, Z, and its sum over the K
    negatives (k times the second expectation). Departures: logarithms are taken exactly, where the code adds 1e-7 to
    the denominators; negatives are drawn with replacement also where there are more samples than K. Eq. 7's second
    expectation is misprinted: it is over C = 0, the negatives.

    Args:
        labels_n: int64 (n,), the class of every sample of the transfer set, any values; at least two classes.
        student_size: features D of the student.
        teacher_size: features E of the teacher.
        seed: seed of the initial projections and memories; no other random generator is read.
        negatives: K ≥ 1, 16384 in Tian et al. and 4096 in the published configuration; may exceed the samples.
        projected_size: F, dimensions of the common space.
        temperature: τ > 0.
        momentum: λ, from 0 (the latest projection alone) to below 1.

    What changes in training is in `state_dict`: projections, memories and logarithms of Z. Labels are not: a resumed
    run gives the same. The projections are parameters: they are learned with the student, by the same optimiser. For
    one process: memories are not shared between several.

    Raises:
        SettingsError: fewer than two classes, or a value out of its range.
        ValueError: labels of a wrong shape or dtype.

    Projected to zeros, all products are 0 and all powers 1: Z = n = 2, h = 1 / (1 + 2 · 1/2) = 1/2, and each direction
    costs ln 2 for the positive and ln 2 for the negative:

    >>> memory = ContrastiveMemory(torch.tensor([0, 1]), student_size=3, teacher_size=2, seed=0, negatives=1)
    >>> for parameter in memory.parameters():
    ...     _ = nn.init.zeros_(parameter)
    >>> loss = memory(torch.ones(1, 3), torch.ones(1, 2), torch.tensor([0]), generator=0)
    >>> round(loss.item(), 4), round(4 * math.log(2), 4)
    (2.7726, 2.7726)
    """

    student_memory: Tensor
    teacher_memory: Tensor
    student_log_z: Tensor
    teacher_log_z: Tensor
    by_class: Tensor
    class_start: Tensor
    class_size: Tensor

    def __init__(
        self,
        labels_n: Tensor,
        *,
        student_size: int,
        teacher_size: int,
        seed: int,
        negatives: int = 16384,
        projected_size: int = 128,
        temperature: float = 0.07,
        momentum: float = 0.5,
    ) -> None:
        super().__init__()
        _check_settings(negatives=negatives, temperature=temperature, momentum=momentum)
        ranges = _class_ranges(labels_n.cpu())
        self.negatives = negatives
        self.temperature = temperature
        self.momentum = momentum
        generator = torch.Generator().manual_seed(seed)
        self.student_projection = _projection(student_size, projected_size, generator)
        self.teacher_projection = _projection(teacher_size, projected_size, generator)
        for model in ("student", "teacher"):
            # Uniform with a variance of 1/F: rows of about length 1, as in the authors' code.
            rows = torch.empty(len(labels_n), projected_size)
            bound = math.sqrt(3 / projected_size)
            self.register_buffer(f"{model}_memory", rows.uniform_(-bound, bound, generator=generator))
            self.register_buffer(f"{model}_log_z", torch.tensor(torch.nan))
        for name, values in zip(("by_class", "class_start", "class_size"), ranges, strict=True):
            self.register_buffer(name, values, persistent=False)

    def forward(
        self,
        student_features_ND: Tensor,
        teacher_features_NE: Tensor,
        positions_N: Tensor,
        *,
        generator: torch.Generator | int,
    ) -> Tensor:
        """Losses of a batch; then its rows of the memories are brought up to date.

        Args:
            student_features_ND: floating point (N, D).
            teacher_features_NE: floating point (N, E), detached here: gradients reach the student's features and both
                projections.
            positions_N: int64 (N,), positions of the samples in the transfer set, from 0 to n − 1, each at most once.
            generator: draws the negatives, on its own device; a number seeds a new one on the memories' device. The
                same draws repeat the same negatives.

        Returns:
            One loss a sample (N,), both directions added, in the memories' dtype (float32), also under autocast. With
            N = 0 none, and nothing changes.

        Raises:
            ValueError: a wrong shape or dtype.
        """
        self._check(student_features_ND, teacher_features_NE, positions_N)
        memory = self.student_memory
        if len(positions_N) == 0:
            return student_features_ND.to(memory.dtype).sum(dim=1)
        positions_N = positions_N.to(memory.device)
        chosen = torch.cat([positions_N[:, None], self.draw_negatives(positions_N, generator=generator)], dim=1)
        with torch.autocast(memory.device.type, enabled=False):
            student_NF = _unit_rows(self.student_projection(student_features_ND.to(memory.dtype)))
            teacher_NF = _unit_rows(self.teacher_projection(teacher_features_NE.detach().to(memory.dtype)))
            student_scores = self._scores(student_NF, self.teacher_memory, chosen)
            teacher_scores = self._scores(teacher_NF, self.student_memory, chosen)
            self.student_log_z = self._log_z(self.student_log_z, student_scores)
            self.teacher_log_z = self._log_z(self.teacher_log_z, teacher_scores)
            losses_N = self._nce(student_scores - self.student_log_z) + self._nce(teacher_scores - self.teacher_log_z)
        self.student_memory = self._updated(self.student_memory, student_NF, positions_N)
        self.teacher_memory = self._updated(self.teacher_memory, teacher_NF, positions_N)
        return losses_N

    def draw_negatives(self, positions_N: Tensor, *, generator: torch.Generator | int) -> Tensor:
        """For each sample K samples of other classes: uniformly among them all, with replacement.

        Args:
            positions_N: int64 (N,), positions of the samples in the transfer set.
            generator: as in `forward`.

        Returns:
            int64 (N, K), positions in the transfer set.

        >>> memory = ContrastiveMemory(torch.tensor([7, 5, 7]), student_size=2, teacher_size=2, seed=0, negatives=4)
        >>> memory.draw_negatives(torch.tensor([0, 2]), generator=0).tolist()
        [[1, 1, 1, 1], [1, 1, 1, 1]]
        """
        device = self.by_class.device
        if isinstance(generator, int):
            generator = torch.Generator(device).manual_seed(generator)
        shape = (len(positions_N), self.negatives)
        # A remainder of so large a number is uniform to one part in 2^62 / n.
        drawn = torch.randint(2**62, shape, generator=generator, device=generator.device).to(device)
        start, size = self.class_start[positions_N, None], self.class_size[positions_N, None]
        # Sorted by class, the anchor's own class is one range: offsets from its start on move behind it.
        offset = drawn % (len(self.by_class) - size)
        return self.by_class[offset + size * (offset >= start)]

    def _scores(self, anchors_NF: Tensor, memory_nF: Tensor, chosen: Tensor) -> Tensor:
        """v·m/τ of each anchor with the rows chosen for it.

        All n products rather than N · K copied rows: the rows alone would take K · F numbers a sample.
        """
        return (anchors_NF @ memory_nF.T).gather(1, chosen) / self.temperature

    def _log_z(self, log_z: Tensor, scores: Tensor) -> Tensor:
        estimate = scores.detach().flatten().logsumexp(dim=0) + math.log(len(self.by_class) / scores.numel())
        return torch.where(log_z.isnan(), estimate, log_z)

    def _nce(self, log_ratio: Tensor) -> Tensor:
        """−log h of the first column − Σ log(1 − h) of the others, for log_ratio = log(e^{v·m/τ} / Z)."""
        logit = log_ratio - math.log(self.negatives / len(self.by_class))  # h is its sigmoid
        return softplus(-logit[:, 0]) + softplus(logit[:, 1:]).sum(dim=1)

    @torch.no_grad()
    def _updated(self, memory_nF: Tensor, new_NF: Tensor, positions_N: Tensor) -> Tensor:
        rows_NF = self.momentum * memory_nF[positions_N] + (1 - self.momentum) * new_NF
        # A new tensor: the backward pass of this batch's loss still needs the old one.
        return memory_nF.index_copy(0, positions_N, _unit_rows(rows_NF))

    def _check(self, student_ND: Tensor, teacher_NE: Tensor, positions_N: Tensor) -> None:
        _check_features(student_ND, teacher_NE)
        sizes = self.student_projection.in_features, self.teacher_projection.in_features
        if (student_ND.shape[1], teacher_NE.shape[1]) != sizes:
            raise ValueError(
                f"expected {sizes[0]} features of the student and {sizes[1]} of the teacher, "
                f"got {student_ND.shape[1]} and {teacher_NE.shape[1]}"
            )
        if positions_N.shape != (len(student_ND),) or positions_N.dtype != torch.int64:
            raise ValueError(
                f"positions_N: expected torch.int64 ({len(student_ND)},), "
                f"got {positions_N.dtype} {tuple(positions_N.shape)}"
            )


def _check_settings(*, negatives: int, temperature: float, momentum: float) -> None:
    if negatives < 1:
        raise SettingsError(f"negatives: expected at least 1, got {negatives}")
    if not temperature > 0:
        raise SettingsError(f"temperature of CRD: expected a number above 0, got {temperature}")
    if not 0 <= momentum < 1:
        raise SettingsError(f"momentum of the memories: expected a number from 0 to below 1, got {momentum}")


def _class_ranges(labels_n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positions sorted by class, and for each sample the start and the size of its class among them."""
    if labels_n.ndim != 1 or labels_n.dtype != torch.int64:
        raise ValueError(f"labels_n: expected torch.int64 (n,), got {labels_n.dtype} {tuple(labels_n.shape)}")
    classes, class_n, sizes = torch.unique(labels_n, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise SettingsError(
            f"CRD contrasts samples of different classes: expected at least two, but the {len(labels_n)} sample(s) "
            f"hold {len(classes)}: give images of more classes, or choose another method"
        )
    starts = sizes.cumsum(dim=0) - sizes
    return labels_n.argsort(stable=True), starts[class_n], sizes[class_n]


def _projection(features: int, projected: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer as PyTorch initialises it, but drawn from this generator."""
    layer = nn.Linear(features, projected, device="meta").to_empty(device="cpu")
    bound = 1 / math.sqrt(features)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


def _similarities(features_ND: Tensor) -> Tensor:
    with torch.autocast(features_ND.device.type, enabled=False):
        unit_ND = _unit_rows(features_ND.to(torch.promote_types(features_ND.dtype, torch.float32)))
        return unit_ND @ unit_ND.T


def _unit_rows(rows: Tensor) -> Tensor:
    """Rows of length 1; a row of zeros stays one, with a finite gradient."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / norms.masked_fill(norms == 0, 1.0)


def _check_features(student_features_ND: Tensor, teacher_features_NE: Tensor) -> None:
    for name, features in (("student_features_ND", student_features_ND), ("teacher_features_NE", teacher_features_NE)):
        if features.ndim != 2 or not features.is_floating_point():
            raise ValueError(f"{name}: expected floating point (N, D), got {features.dtype} {tuple(features.shape)}")
    if len(student_features_ND) != len(teacher_features_NE):
        raise ValueError(
            f"expected features of the same samples, got {len(student_features_ND)} of the student "
            f"and {len(teacher_features_NE)} of the teacher"
        )
