"""The losses of CD and CRD: student and teacher compared by their features (appendix A.2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..losses import ContrastiveMemory, cd_loss
from ..models import Classifier, FeatureTap, feature_size


@dataclass(frozen=True, kw_only=True)
class FeatureComparison:
    """Taps on both models, and the memory of CRD.

    Attributes:
        student: tap on the student under training.
        teacher: tap on the frozen teacher.
        memory: projections and memories of CRD, trained with the student; None for CD.
    """

    student: FeatureTap
    teacher: FeatureTap
    memory: ContrastiveMemory | None

    @classmethod
    def between(
        cls, student: Classifier, teacher: Classifier, *, labels_n: Tensor | None, negatives: int, seed: int
    ) -> "FeatureComparison":
        """Tap two models.

        Args:
            student: the model under training.
            teacher: the frozen model to learn from.
            labels_n: int64 (n,), the transfer images' labels, for CRD's memory; None for CD.
            negatives: samples of other classes that CRD contrasts each sample with.
            seed: seed of CRD's initial projections and memories.

        Raises:
            ModelError: a model's classifier layer cannot be found.
            SettingsError: the labels are of one class.
        """
        memory = None
        if labels_n is not None:
            memory = ContrastiveMemory(
                labels_n,
                student_size=feature_size(student),
                teacher_size=feature_size(teacher),
                seed=seed,
                negatives=negatives,
            )
        return cls(student=FeatureTap(student), teacher=FeatureTap(teacher), memory=memory)

    def parameters(self) -> list[nn.Parameter]:
        """Parameters that are trained with the student."""
        return [] if self.memory is None else list(self.memory.parameters())

    def losses(self, positions_N: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
        """The losses of the batch that both models have just seen, and which samples can be learned from.

        Args:
            positions_N: int64, positions of the samples among the transfer images.
            seed: seed of CRD's negatives.

        Returns:
            The losses (N,), and bool (N,): whether all of the teacher's features of a sample are finite.
        """
        student_ND, teacher_NE = self.student.take(), self.teacher.take()
        finite_N = teacher_NE.detach().isfinite().all(dim=1)
        if self.memory is None:
            return cd_loss(student_ND, teacher_NE, reduction="none"), finite_N
        losses: Tensor = self.memory(student_ND, teacher_NE, positions_N, generator=seed)
        return losses, finite_N

    def to(self, device: torch.device) -> None:
        """Move the memory."""
        if self.memory is not None:
            self.memory.to(device)

    def state(self) -> dict[str, Any] | None:
        """Projections and memories, as `load_state` takes them."""
        return None if self.memory is None else self.memory.state_dict()

    def load_state(self, state: Mapping[str, Any] | None) -> None:
        """Go on from what `state` returned."""
        if self.memory is not None and state is not None:
            self.memory.load_state_dict(state)

    def close(self) -> None:
        """Take the taps off."""
        self.student.close()
        self.teacher.close()
