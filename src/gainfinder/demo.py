"""The main job on scikit-learn's handwritten digits, without network: a small zoo, its complementary knowledge, a
label-free transfer from a weaker teacher into the strongest student, and plain distillation beside it.

The digits are cut into three disjoint parts by their ids: the zoo is trained on the first, students learn from the
second without labels, and everything is measured on the third.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import Tensor, nn

from .api import scan, transfer
from .data import load_images
from .errors import RunFolderError
from .metrics import Scan
from .models import Preprocessing, prepare
from .runs import Callback, TransferResult
from .views import evaluation_crop

TRAIN, LEARN, MEASURE = "digits#1/3", "digits#2/3", "digits#3/3"
METHODS = ("kl-prod-cal-u", "kl")
EPOCHS = 10
LR = 1e-3
"""AdamW's, for tiny models: without a guard there are no images to choose one by."""
MARKER = ".gainfinder-demo"


@dataclass(frozen=True, kw_only=True)
class Member:
    """A model of the demo's zoo.

    Attributes:
        name: name of the model, and of its folder or file.
        architecture: timm's name, or None for the module that the demo writes as Python source.
        arguments: arguments of the architecture.
        expertise: digits whose training images it sees all of.
        share: share of the other digits' training images that it sees.
        epochs: passes over its training images.
    """

    name: str
    architecture: str | None
    arguments: dict[str, Any]
    expertise: tuple[int, ...]
    share: float
    epochs: int


SIZE = 16
ZOO = (
    Member(
        name="resnet",
        architecture="resnet18",
        arguments={"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 64)},
        expertise=(0, 1, 2, 3, 4, 5, 6),
        share=0.25,
        epochs=25,
    ),
    Member(
        name="convnext",
        architecture="convnext_atto",
        arguments={"patch_size": 1, "depths": (1, 1, 1, 1), "dims": (16, 32, 64, 64)},
        expertise=(1, 3, 5, 7, 9),
        share=0.15,
        epochs=25,
    ),
    Member(
        name="vit",
        architecture="vit_tiny_patch16_224",
        arguments={"img_size": SIZE, "patch_size": 4, "embed_dim": 64, "depth": 3, "num_heads": 4},
        expertise=(5, 6, 7, 8, 9),
        share=0.15,
        epochs=40,
    ),
    Member(name="mixer", architecture=None, arguments={}, expertise=(0, 2, 4, 6, 8), share=0.15, epochs=30),
)
MIXER_SOURCE = '''"""A small MLP-Mixer (Tolstikhin et al., 2021), its blocks from timm, as a module of one's own."""

from timm.models.mlp_mixer import MlpMixer


def mixer():
    model = MlpMixer(img_size=16, patch_size=4, embed_dim=64, num_blocks=3, num_classes=10)
    model.pretrained_cfg = {
        "input_size": (3, 16, 16),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "label_names": tuple("0123456789"),
    }
    return model
'''


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The results of the demo.

    Attributes:
        zoo: references of the zoo's models.
        scan: their accuracies and complementary knowledge.
        transfers: result by method, for the same student and teacher.
    """

    zoo: tuple[str, ...]
    scan: Scan
    transfers: dict[str, TransferResult]


def run_demo(folder: Path, *, callback: Callback | None = None, seed: int = 0) -> Demo:
    """Train the zoo, scan it, transfer twice; all results go into `folder`.

    Args:
        folder: folder that does not exist, is empty, or holds an earlier demo, whose complete files are used again.
        callback: notified of progress.
        seed: seed of everything random.

    Raises:
        RunFolderError: the folder holds something else.
    """
    callback = callback or Callback()
    _claim(folder)
    with _one_thread():
        return _run(folder, callback, seed)


@contextmanager
def _one_thread() -> Iterator[None]:
    # Models as small as these gain next to nothing from a second thread, and on a busy machine lose tenfold by it:
    # threads spin while they wait for each other.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run(folder: Path, callback: Callback, seed: int) -> Demo:
    references = train_zoo(folder / "zoo", callback=callback, seed=seed)

    def on_model(name: str, images: int) -> Any:
        callback.stage(f"scanning {Path(name).name}", images)
        return callback.advance

    found = scan(references, MEASURE, device="cpu", workers=0, on_model=on_model, out=folder / "scan")
    student, teacher = choose_pair(found)
    transfers = {
        method: transfer(
            student,
            teacher,
            LEARN,
            val=MEASURE,
            out=folder / method,
            callbacks=[callback],
            method=method,
            labels="none",
            guard=False,  # the demo shows what the methods do by themselves
            epochs=EPOCHS,
            lr=LR,
            seed=seed,
            device="cpu",
            workers=0,
        )
        for method in METHODS
    }
    return Demo(zoo=tuple(references), scan=found, transfers=transfers)


def choose_pair(found: Scan) -> tuple[str, str]:
    """The strongest model as the student; of the weaker others, the one that knows most of what it does not."""
    student = max(found.models, key=lambda model: model.accuracy or 0.0).model
    pairs = [pair for pair in found.pairs if pair.student == student]
    return student, max(pairs, key=lambda pair: pair.positive_flips or 0.0).teacher


def train_zoo(folder: Path, *, callback: Callback, seed: int) -> list[str]:
    """Train the zoo's models that `folder` lacks, and return the references of all."""
    folder.mkdir(parents=True, exist_ok=True)
    images = load_images(TRAIN)
    assert images.labels is not None
    norm = Preprocessing(
        input_size=(3, SIZE, SIZE), mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear", crop_pct=1.0
    )
    crop = evaluation_crop(norm)
    x = prepare(torch.stack([crop(images.read(i)) for i in range(len(images))]), norm)
    y = torch.from_numpy(images.labels)
    references = []
    for number, member in enumerate(ZOO):
        reference, done = _location(member, folder)
        references.append(reference)
        if done.exists():
            continue
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(100 * seed + number)
            keep = torch.isin(y, torch.tensor(member.expertise)) | (torch.rand(len(y)) < member.share)
            callback.stage(f"training {member.name}", member.epochs * int(keep.sum()))
            model = _fit(_build(member, folder, norm), x[keep], y[keep], epochs=member.epochs, callback=callback)
        _save(member, model, folder)
    return references


def _claim(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).exists():
        raise RunFolderError(f"{folder}: holds other files; give the demo an empty `out`")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text("Made by `gainfinder demo`; may be deleted.\n", encoding="utf-8")


def _location(member: Member, folder: Path) -> tuple[str, Path]:
    """A model's reference, and the file that exists once it is trained."""
    if member.architecture is None:
        weights = folder / f"{member.name}.safetensors"
        return f"file:{folder / member.name}.py:{member.name}@{weights}", weights
    return f"local-dir:{folder / member.name}", folder / member.name / "config.json"


def _build(member: Member, folder: Path, norm: Preprocessing) -> nn.Module:
    if member.architecture is None:
        (folder / f"{member.name}.py").write_text(MIXER_SOURCE, encoding="utf-8")
        namespace: dict[str, Any] = {}
        exec(MIXER_SOURCE, namespace)
        own: nn.Module = namespace[member.name]()
        return own
    model: Any = timm.create_model(member.architecture, num_classes=10, **member.arguments)
    inherited = {key: value for key, value in model.pretrained_cfg.items() if not key.startswith("test_")}
    names = tuple("0123456789")
    model.pretrained_cfg = {**inherited, **norm.timm_config(), "num_classes": 10, "label_names": names}
    return cast(nn.Module, model)


def _fit(model: nn.Module, x: Tensor, y: Tensor, *, epochs: int, callback: Callback) -> nn.Module:
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05, fused=True)
    model.train()
    for _ in range(epochs):
        for batch in torch.tensor_split(torch.randperm(len(y)), -(-len(y) // 32)):
            loss: Tensor = nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            callback.advance(len(batch))
    return model.eval()


def _save(member: Member, model: nn.Module, folder: Path) -> None:
    if member.architecture is None:
        save_file(model.state_dict(), folder / f"{member.name}.safetensors")
    else:
        save_for_hf(model, str(folder / member.name), safe_serialization=True)
