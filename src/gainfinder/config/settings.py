"""The settings of a transfer: each is declared here, once, and nowhere else.

Flags, shell completion, messages, the table in the documentation and the types of `gainfinder.transfer`'s keyword
arguments come from these fields. None stands for "by the rule"; `resolution.py` has the rules.
"""

from collections.abc import Mapping, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any, Literal, Self, Unpack

from pydantic import AfterValidator, BaseModel, BeforeValidator, ValidationError, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler

from ..errors import SettingsError
from .choices import (
    CONTROLS,
    TRACKERS,
    Augment,
    Both,
    DecideOn,
    Device,
    Labels,
    Optimizer,
    Order,
    Precision,
    Preset,
    Schedule,
    Strategy,
    StudentMode,
    check_device,
    control_names,
    share_of,
    tracker_names,
)
from .declaration import Setting, declared_settings, first_mistake
from .kinds import (
    Count,
    CountFromZero,
    NotNegative,
    Positive,
    ProperShare,
    Share,
    ShareAboveZero,
    ShareBelowOne,
    Whole,
    as_path,
    known_method,
    known_size,
    known_storage,
    no_word,
)
from .options import TransferOptions


class TransferConfig(BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False):
    """The settings of a transfer; None means "by the rule".

    Values that are out of range, of another type or of an unknown name raise `SettingsError`. Equal settings are equal
    and have one hash, and `TransferConfig.model_validate_json(config.model_dump_json())` gives them back.
    """

    guard: Annotated[
        bool | None,
        Setting(
            help="Keep the best point between the old and the new student, judged on guard images; default: yes.",
            more="The preset `paper` does without, unless guard images or `at_most` are given.",
            rule="yes; no with preset `paper`",
        ),
    ] = None
    control: Annotated[
        bool | str | Sequence[str],
        AfterValidator(control_names),
        Setting(
            help="Learn by the same recipe from the student's own copy, too (copy), or the true labels (labels).",
            more="`copy`, in `control/` of the result folder: what the teacher's transfer changes beyond it is not "
            "adaptation to the images; True is the same. `labels`, in `control-labels/`: what the student could reach "
            "if all targets were right; the labels are read for it alone.",
            choices=CONTROLS,
            changes_results=False,
        ),
    ] = ()
    at_most: Annotated[
        str | ProperShare | None,
        BeforeValidator(share_of),
        AfterValidator(no_word),
        Setting(
            help="Most answers that may change, such as 1%; accuracy cannot fall by more.",
            more="Of the guard's candidates only those count of which that is sure, at 95 %, by an exact bound on "
            "guard images. No label is needed.",
            rule="no limit",
            expected="a share above 0 and below 1, or a percentage such as 1%",
        ),
    ] = None
    strategy: Annotated[
        Strategy,
        Setting(
            help="With several teachers: sequential, parallel or soup.",
            more="`sequential`: one after the other, each result the next one's initial student; `parallel`: each "
            "sample to the surest of all; `soup`: one transfer a teacher, their weights averaged.",
        ),
    ] = "sequential"
    order: Annotated[Order, Setting(help="Of teachers in a sequence: ascending accuracy, descending, or as given.")] = (
        "ascending"
    )
    both: Annotated[
        Both | None,
        Setting(
            help="The teacher learns from the student, too: from its frozen initial copy, or live, as both learn.",
            more="`frozen`: two transfers, one each way, one after the other; `live`: both models train in step, and "
            "each learns from the other as it is by then. Two results, in `1/` of the result folder the student's, in "
            "`2/` the teacher's.",
            rule="the student alone learns",
        ),
    ] = None
    labels: Annotated[Labels, Setting(help="use, or none: training reads no label.", expected="use or none")] = "use"
    method: Annotated[
        str | None,
        AfterValidator(known_method),
        Setting(
            help="See `gainfinder methods`; default: kl-dp with labels, kl-prod-cal-u without.",
            rule="`kl-dp` with labels, `kl-prod-cal-u` without",
        ),
    ] = None
    preset: Annotated[
        Preset | None,
        Setting(
            help="paper: the paper's own values; gentle: a few epochs of SGD at a low rate.",
            more="With `gentle` the student stays near where it began.",
            rule="none",
        ),
    ] = None
    epochs: Annotated[
        Count | None,
        Setting(
            help="Passes over the images, at most; default: 1,000,000 / images, from 5 to 100.",
            more="The paper makes 20.",
            rule="1,000,000 / images, from 5 to 100",
        ),
    ] = None
    batch_size: Annotated[
        Count | Literal["auto"] | None,
        Setting(
            help="Images a step, over all processes; default {fallback}; auto: {fallback}, as many at once as memory "
            "holds.",
            more="The preset `paper` takes 256, `gentle` 64. An epoch is cut into batches of at most this size that "
            "differ by at most one image.",
            fallback=128,
        ),
    ] = None
    micro_batch: Annotated[
        Count | Literal["auto"] | None,
        Setting(
            help="Images at once in a process, gradients of a batch add up; auto: as many as memory holds.",
            more="`auto` is found out before training. None takes all, until memory does not suffice.",
            rule="all",
        ),
    ] = None
    lr: Annotated[
        NotNegative | None,
        Setting(
            help="Highest learning rate; default: chosen by trials.",
            more="As it reaches the optimiser. Without trials 3e-4 at a batch of 128 by AdamW, by SGD 1 / steps and at "
            "most 1e-3 at a batch of 64 (most methods).",
            rule="chosen by trials",
        ),
    ] = None
    temperature: Annotated[
        Positive | None, Setting(help="Of the distillation; default: mostly 1.", rule="the method's, mostly 1")
    ] = None
    schedule: Annotated[
        Schedule | None,
        Setting(
            help="Of the rate: plateau (default with a guard), cosine (without), linear or constant.",
            more="`plateau`: constant while the loss on the guard images falls, then to 0 over a quarter of the epochs "
            "so far; `epochs` is then the most that are made. The others end at 0 with the last step, but for "
            "`constant`, which is the paper's.",
            rule="`plateau` with a guard, `cosine` without",
        ),
    ] = None
    patience: Annotated[
        Count | None,
        Setting(
            help="Of schedule plateau: epochs without a lower loss on guard images; default: 0.15 of all, at least 5.",
            rule="0.15 of the epochs, at least 5",
        ),
    ] = None
    lr_warmup: Annotated[
        ShareBelowOne | None,
        Setting(help="Share of the steps in which the rate rises to its highest; default {fallback}.", fallback=0.05),
    ] = None
    optimizer: Annotated[
        Optimizer | None,
        Setting(
            help="adamw or sgd; default: adamw.",
            more="The paper's is SGD.",
            rule="`adamw`; `sgd` with a preset",
        ),
    ] = None
    ema_decay: Annotated[
        ShareBelowOne | None,
        Setting(
            help="Of a moving average of the weights, which is measured and kept in the student's place; default "
            "{fallback}; 0: none.",
            more="It rises to this value as (1 + t) / (10 + t) after t steps.",
            fallback=0.998,
        ),
    ] = None
    trials: Annotated[
        bool | None,
        Setting(
            help="Choose the rate by short trials; default: where none is given.",
            more="They go by the loss on guard images and take a quarter of the run's steps at most.",
            rule="yes, where neither rate nor preset is given and there is a loss on guard images",
        ),
    ] = None
    layer_decay: Annotated[
        ShareAboveZero | None,
        Setting(
            help="Rate of each block as a share of the next one's; default {fallback}: all alike.",
            more="As in timm.",
            fallback=1.0,
        ),
    ] = None
    distill_weight: Annotated[
        Share | None,
        Setting(
            help="Of the distillation, 0 to 1; the cross-entropy with the labels gets the rest.",
            more="λ of the paper. With `cd` and `crd` the cross-entropy keeps its weight, 1.",
            rule="the method's",
        ),
    ] = None
    label_smoothing: Annotated[
        ShareBelowOne | None,
        Setting(help="Of that cross-entropy.", more="ε of its targets.", rule="the method's, mostly 0"),
    ] = None
    top_k: Annotated[Count | None, Setting(help="Classes that kl-top-k compares; default {fallback}.", fallback=10)] = (
        None
    )
    sharpness: Annotated[
        Positive | None,
        Setting(
            help="Of the -soft methods; default {fallback}.",
            more="A model's weight is its confidence to this power.",
            fallback=4.0,
        ),
    ] = None
    decide_on: Annotated[
        DecideOn | None,
        Setting(
            help="Who teaches an image: by each view, or once by the plain image, so that one model answers a view.",
            more="Of methods that give each image to one model, the -dp methods that are not soft. `image` spares half "
            "of what two frozen models cost a step, and gains less.",
            fallback="view",
        ),
    ] = None
    slow_momentum: Annotated[
        Share | None,
        Setting(help="Of xe-kl-mcl (τ); default: by steps.", rule="1 − 0.5 / interpolations, at least 0.9"),
    ] = None
    slow_every: Annotated[
        Count | None,
        Setting(help="Of xe-kl-mcl (N); default {fallback}.", more="Steps between two interpolations.", fallback=2),
    ] = None
    negatives: Annotated[
        Count | None,
        Setting(
            help="Of crd: negatives a sample; default {fallback}.",
            more="Tian et al. take 16,384.",
            fallback=4096,
        ),
    ] = None
    warmup_epochs: Annotated[
        CountFromZero | None,
        Setting(
            help="First epochs that train the classifier layer alone; default: the method's.",
            rule="the method's, mostly 0",
        ),
    ] = None
    student_mode: Annotated[
        StudentMode | None,
        Setting(
            help="Batch-norm and dropout of the student: train (as published), frozen or reestimate.",
            more="`train`: batch statistics and dropout; `frozen`: as in evaluation; `reestimate`: batch-norm "
            "statistics are re-estimated on the views first, then as in evaluation.",
            fallback="train",
        ),
    ] = None
    momentum: Annotated[ShareBelowOne | None, Setting(help="Of SGD; default {fallback}.", fallback=0.9)] = None
    weight_decay: Annotated[
        NotNegative | None,
        Setting(help="Of all weights; default: 1e-3 by SGD, 0.05 by AdamW.", rule="1e-3 by SGD, 0.05 by AdamW"),
    ] = None
    seed: Annotated[Whole, Setting(help="Fixes order, augmentation and dropout.")] = 0
    augment: Annotated[
        Augment | None,
        Setting(
            help="paper, rrc, crop-flip or none; default: none for digits, crop-flip below 96 pixels, else paper.",
            rule="`none` for digits, `crop-flip` below 96 pixels, else `paper`",
        ),
    ] = None
    adapt_start: Annotated[
        bool | None,
        Setting(
            help="Begin with batch-norm statistics re-estimated, where the guard's rule prefers that; default: yes.",
            more="The frozen copy that retains is then that student, too.",
            rule="yes; no with a preset",
        ),
    ] = None
    mixup: Annotated[
        Share | None,
        Setting(
            help="Share of the views over which another image is laid; default: 0.7 from 40 epochs up.",
            more="Up to a half of it shows. All models see the same mixed view, and labels that are fitted are those "
            "of both images. By default 0 with fewer epochs and tables of predictions.",
            rule="0.7; 0 below 40 epochs, with tables, with methods that compare features, and with a preset",
        ),
    ] = None
    views: Annotated[
        Count | None,
        Setting(
            help="Views of each image, used in turn; default: a fresh one each epoch.", rule="a fresh one each epoch"
        ),
    ] = None
    view_seed: Annotated[
        Whole | None,
        Setting(
            help="Of the views; default: the seed.",
            more="Runs of several seeds that share a bank give it.",
            rule="the seed",
        ),
    ] = None
    bank: Annotated[
        str | Path | None,
        AfterValidator(as_path),
        Setting(
            help="Folder that keeps what frozen models answer for the views, and decoded images, for other transfers.",
            more="Which folder it is changes no result.",
            rule="none",
            expected="a folder of this machine",
        ),
    ] = None
    bank_storage: Annotated[
        str,
        AfterValidator(known_storage),
        Setting(help="full (16-bit logits), or top-K: the K most probable classes of each image."),
    ] = "full"
    bank_limit: Annotated[
        str | None,
        AfterValidator(known_size),
        Setting(
            help="Size such as 20GB; what was used least recently goes first.",
            rule="as much as the disk has",
            changes_results=False,
        ),
    ] = None
    bank_check: Annotated[
        CountFromZero,
        Setting(
            help="Views of each entry to ask the models about again; the largest difference is reported.",
            changes_results=False,
        ),
    ] = 0
    limit: Annotated[
        Count | None, Setting(help="Learn from a stratified so-many of the images.", rule="all images")
    ] = None
    subset: Annotated[
        ShareAboveZero | None,
        Setting(
            help="Learn from a stratified share of the images.",
            rule="all images",
            expected="a share above 0 and up to 1",
        ),
    ] = None
    device: Annotated[Device, BeforeValidator(check_device), Setting(help="auto, cpu, cuda or mps.")] = "auto"
    precision: Annotated[
        Precision,
        Setting(
            help="Of training: auto (mixed where the device has it), fp32, bf16 or fp16.",
            more="Measuring is always in float32, with torch's own setting for TF32 on GPUs.",
            expected="auto, fp32, bf16 or fp16",
        ),
    ] = "auto"
    compile: Annotated[bool, Setting(help="Compile the models (torch.compile): takes a minute or more at first.")] = (
        False
    )
    workers: Annotated[
        CountFromZero | None,
        Setting(
            help="Processes that decode images; default: none on a CPU, else up to 16.",
            rule="none on a CPU, else up to 16",
            changes_results=False,
        ),
    ] = None
    checkpoint_every: Annotated[
        Count | None,
        Setting(
            help="Steps between checkpoints within an epoch, and one after each; default: after epochs, as often as "
            "takes a twentieth of the time.",
            rule="after epochs, as often as takes a twentieth of the time",
            changes_results=False,
        ),
    ] = None
    max_broken: Annotated[
        Share,
        Setting(
            help="Largest share of images that may be undecodable; they are skipped and counted.",
            expected="a share from 0 to 1",
        ),
    ] = 0.01
    track: Annotated[
        str | Sequence[str],
        AfterValidator(tracker_names),
        Setting(
            help="Tell the measures to tensorboard (in OUT/tracking), wandb, mlflow … ; may be repeated.",
            more="Whatever Accelerate's trackers are called.",
            choices=TRACKERS,
            changes_results=False,
        ),
    ] = ()

    @model_validator(mode="wrap")
    @classmethod
    def _settings_error(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            given = data if isinstance(data, dict) else {}
            raise SettingsError(first_mistake(SETTINGS, error, given)) from None

    @model_validator(mode="after")
    def _fit_each_other(self) -> Self:
        if self.bank is None and (self.bank_storage != "full" or self.bank_limit is not None or self.bank_check):
            raise SettingsError(
                "bank-storage, bank-limit and bank-check are settings of the bank: give its folder as bank"
            )
        if self.limit is not None and self.subset is not None:
            raise SettingsError("limit and subset are both given: give one of them")
        return self

    @property
    def guarded(self) -> bool:
        """Whether there is a guard: as given, else by the rule."""
        if self.guard is not None:
            return self.guard
        return self.preset != "paper" or self.at_most is not None

    @property
    def fits_itself(self) -> bool:
        """Whether the size of micro-batches is found by trial."""
        return "auto" in (self.batch_size, self.micro_batch)

    @property
    def controls(self) -> tuple[str, ...]:
        """The names of `control`, in the order in which they run."""
        return control_names(self.control)

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names of `track`, each once."""
        return tracker_names(self.track)

    def replace(self, **changes: Unpack[TransferOptions]) -> Self:
        """A copy with these settings changed.

        Raises:
            SettingsError: a name is unknown, or a value is out of range.
        """
        return type(self)(**{**dict(self), **changes})

    def merged(self, changes: Mapping[str, Any]) -> Self:
        """These settings with others that are given beside them.

        Raises:
            SettingsError: a setting is given in both, a name is unknown, or a value is out of range.
        """
        twice = [one.name for one in SETTINGS if one.name in changes and getattr(self, one.name) != one.default]
        if twice:
            raise SettingsError(f"{twice[0]} is given twice, in the configuration and beside it: give one of them")
        return type(self)(**{**dict(self), **changes})

    def result_settings(self) -> dict[str, Any]:
        """The settings that change results, by name, as JSON knows them; of the bank what it stores, not where."""
        values = self.model_dump(mode="json", include={one.name for one in SETTINGS if one.about.changes_results})
        return {**values, "bank": None if self.bank is None else self.bank_storage}


SETTINGS = declared_settings(TransferConfig)
"""The declarations, in the order in which commands and tables show them."""
TransferConfig.__doc__ = "\n".join(
    [
        *cleandoc(TransferConfig.__doc__ or "").splitlines(),
        "",
        "Attributes:",
        *(f"    {one.name}: {' '.join([one.help, one.about.more]).strip()}" for one in SETTINGS),
    ]
)
