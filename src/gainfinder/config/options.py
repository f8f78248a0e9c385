"""The keyword arguments of `gainfinder.transfer`, for type checkers; `docs/options.py` writes this file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict


class TransferOptions(TypedDict, total=False):
    """Settings by name: fields of `TransferConfig`, where each is declared and explained."""

    guard: bool | None
    control: bool | str | Sequence[str]
    at_most: str | float | None
    strategy: Literal["sequential", "parallel", "soup"]
    order: Literal["ascending", "descending", "given"]
    both: Literal["frozen", "live"] | None
    labels: Literal["use", "none"]
    method: str | None
    preset: Literal["paper", "gentle"] | None
    epochs: int | None
    batch_size: int | Literal["auto"] | None
    micro_batch: int | Literal["auto"] | None
    lr: float | None
    temperature: float | None
    schedule: Literal["linear", "cosine", "constant", "plateau"] | None
    patience: int | None
    lr_warmup: float | None
    optimizer: Literal["adamw", "sgd"] | None
    ema_decay: float | None
    trials: bool | None
    layer_decay: float | None
    distill_weight: float | None
    label_smoothing: float | None
    top_k: int | None
    sharpness: float | None
    decide_on: Literal["view", "image"] | None
    slow_momentum: float | None
    slow_every: int | None
    negatives: int | None
    warmup_epochs: int | None
    student_mode: Literal["train", "frozen", "reestimate"] | None
    momentum: float | None
    weight_decay: float | None
    seed: int
    augment: Literal["paper", "rrc", "crop-flip", "none"] | None
    adapt_start: bool | None
    mixup: float | None
    views: int | None
    view_seed: int | None
    bank: str | Path | None
    bank_storage: str
    bank_limit: str | None
    bank_check: int
    limit: int | None
    subset: float | None
    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    compile: bool
    workers: int | None
    checkpoint_every: int | None
    max_broken: float
    track: str | Sequence[str]
