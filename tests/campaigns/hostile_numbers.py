"""Walks hostile numbers through every command, and looks for NaN and infinity in all that is left behind.

    PYTHONPATH=tests/helpers:. python tests/campaigns/hostile_numbers.py [--only GROUP …] [--every 1] [--reports]

Models whose logits are NaN, infinite, masked, constant, huge or tiny, as teacher, student, referee, table and in the
bank; models all wrong and all right; sets of one image, of one an class and of one class; 1, 2 and 21,841 classes;
training that diverges. Each with methods, guards, strategies, labels and without. A combination ends

    right      with a result: its numbers are finite and, as far as they are recomputed, those of a naive loop
    refused    with an error of one line that a user can read
    kept       with the error that training diverges, and a sound student in the folder; asked again it says the same
    SILENT     with a result in which a number is NaN or infinite, or wrong
    TRACEBACK  with any other exception, or an error of several lines

Prints a line for each that is SILENT or TRACEBACK, and totals as JSON; exits with 1 where there is any.
"""

import argparse
import json
import logging
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gainfinder
import gainfinder.api
from gainfinder.config import METHODS
from gainfinder.data import Images
from gainfinder.errors import Diverged, GainfinderError
from number_checks import answer, close, wrong_numbers
from odd_models import PROBED, TWISTS, UNSOUND, Hostile, few, of_classes

FAST: dict[str, Any] = {"preset": "gentle", "epochs": 2, "batch_size": 16, "workers": 0, "device": "cpu"}
OWN = {"crd": {"negatives": 16}}
Make = Callable[[Path], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A combination.

    Attributes:
        name: the group, and what is combined.
        make: runs it in a folder that does not exist yet.
        unsound: whether a model that must be refused takes part.
    """

    name: str
    make: Make
    unsound: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--every", type=int, default=1, help="every n-th combination of each group")
    parser.add_argument("--reports", action="store_true", help="make and read the reports, too")
    parser.add_argument("--verbose", action="store_true", help="a line for every combination")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    logging.getLogger("gainfinder").setLevel(logging.CRITICAL)
    if not asked.reports:
        setattr(gainfinder.api, "refresh_report", lambda folder: None)  # noqa: B010 (it is not exported)
    totals: dict[str, Counter[str]] = {}
    for group in asked.only:
        counts: Counter[str] = Counter()
        for job in [*GROUPS[group]()][:: asked.every]:
            outcome, text = run_job(job)
            counts[outcome] += 1
            if outcome.isupper() or asked.verbose:
                print(f"{outcome:9} {group} {job.name}: {text}", flush=True)
        totals[group] = counts
        print(f"{group}: {dict(counts)}", flush=True)
    total = sum(totals.values(), Counter())
    print(json.dumps(total))
    sys.exit(int(any(outcome.isupper() for outcome in total)))


def run_job(job: Job) -> tuple[str, str]:
    """How a combination ends, and why."""
    with tempfile.TemporaryDirectory(prefix="numbers-") as scratch:
        out = Path(scratch) / "out"
        try:
            job.make(out)
        except Diverged as error:
            return _kept(job, out, error)
        except GainfinderError as error:
            lines = str(error).strip().splitlines()
            return ("refused", str(error)) if len(lines) == 1 else ("TRACEBACK", f"{len(lines)} lines: {error}")
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            return "TRACEBACK", f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        if wrong := [*wrong_numbers(out)]:
            return "SILENT", "; ".join(wrong[:3])
        return ("SILENT", "a result of a model without probabilities") if job.unsound else ("right", "")


def _kept(job: Job, out: Path, error: Diverged) -> tuple[str, str]:
    if wrong := [*wrong_numbers(out)]:
        return "SILENT", "; ".join(wrong[:3])
    if len(str(error).splitlines()) != 1:
        return "TRACEBACK", f"several lines: {error}"
    if not [*out.glob("student/*")]:
        return "SILENT", "no student is kept"
    try:
        job.make(out)
    except Diverged as again:
        return ("kept", str(error)) if str(again) == str(error) else ("SILENT", f"says another thing: {again}")
    except Exception as other:
        return "TRACEBACK", f"asked again: {type(other).__name__}: {other}"
    return "SILENT", "asked again, there is a result"


# --- combinations

VAL, DATA, GUARD = 40, 64, 60


def val() -> Images:
    return few(VAL)


def data() -> Images:
    return few(DATA, start=100)


def guard_images() -> Images:
    return few(GUARD, start=300)


def sets() -> dict[str, Images]:
    """Sets of images that leave little to measure."""
    digits = few(60)
    assert digits.labels is not None
    threes = np.flatnonzero(digits.labels == 3)
    firsts = [int(np.flatnonzero(digits.labels == label)[0]) for label in range(10)]
    return {
        "a single image": digits.select([0]),
        "one image a class": digits.select(firsts),
        "one class": digits.select(threes),
        "two images": digits.select([0, 1]),
    }


def model(kind: str) -> Hostile:
    """A model by the name of its twist; `wrong` and `right` are so on all images that are measured on."""
    if kind in {"wrong", "right"}:
        return Hostile(count=VAL, shift=int(kind == "wrong"))
    return Hostile(kind)


KINDS = (*TWISTS, "wrong", "right")


def transfer(out: Path, student: Any, teacher: Any, **given: Any) -> None:
    method = given.get("method")
    asked = {**FAST, "guard": False, "val": val(), **OWN.get(method or "", {}), **given}
    images = asked.pop("data", None) or data()
    gainfinder.transfer(student, teacher, images, out=out, **asked)


def job(name: str, make: Make, kind: str = "plain") -> Job:
    return Job(name=name, make=make, unsound=kind in UNSOUND)


def predictions() -> Iterator[Job]:
    for kind in KINDS:
        for name, images in {"few": val(), **sets()}.items():

            def make(out: Path, kind: str = kind, images: Images = images) -> None:
                gainfinder.predict(model(kind), images, device="cpu", workers=0).write(out / "p.parquet")
                gainfinder.predict(model(kind), images, device="cpu", workers=0).write(out / "q.parquet", top_k=3)

            yield job(f"{kind}, {name}", make, kind if len(images) > PROBED else "plain")


def scans() -> Iterator[Job]:
    for kind in KINDS:
        for name, images in {"few": val(), **sets(), "unlabelled": val().without_labels()}.items():

            def scan(out: Path, kind: str = kind, images: Images = images) -> None:
                models = [Hostile(noise=0.5), model(kind), Hostile(count=20)]
                found = gainfinder.scan(models, images, device="cpu", workers=0, out=out, student="Hostile")
                _check_scan(found, models, images, out)

            def rank(out: Path, kind: str = kind, images: Images = images) -> None:
                models = [model(kind), Hostile(count=20)]
                gainfinder.rank(Hostile(noise=0.5), models, images, device="cpu", workers=0, out=out)

            yield Job(name=f"scan {kind}, {name}", make=scan)  # a model that cannot be run is left out, and named
            yield Job(name=f"rank {kind}, {name}", make=rank)


def _check_scan(found: Any, models: list[Any], images: Images, out: Path) -> None:
    """Accuracies and flips as a forward pass of our own has them."""
    document = json.dumps(found.to_dict(), allow_nan=False)
    assert document, "a NaN raises"
    if images.labels is None:
        return
    right = {}
    for name, one in zip(("Hostile", "Hostile-2", "Hostile-3"), models, strict=True):
        with torch.no_grad():
            logits = gainfinder.load_model(one).logits(_inputs(images)).tolist()
        right[name] = [answer(row) == int(label) for row, label in zip(logits, images.labels, strict=True)]
    known = [one.model for one in found.models]
    order = dict(zip(known, [name for name in right if name not in _left_out(found, models)], strict=True))
    for one in found.models:
        assert close(one.accuracy, sum(right[order[one.model]]) / len(images)), "accuracy"
    for pair in found.pairs:
        student, teacher = right[order[pair.student]], right[order[pair.teacher]]
        flips = sum(t and not s for s, t in zip(student, teacher, strict=True)) / len(images)
        assert close(pair.positive_flips, flips), "positive flips"


def _left_out(found: Any, models: list[Any]) -> set[str]:
    """The twisted one is the only one that may fail."""
    return {"Hostile-2"} if len(found.models) < len(models) else set()


def _inputs(images: Images) -> torch.Tensor:
    pixels = [np.asarray(images.read(at), dtype=np.float32) for at in range(len(images))]
    return (torch.tensor(np.stack(pixels)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5


def teachers() -> Iterator[Job]:
    for kind in KINDS:
        for method in METHODS:

            def make(out: Path, kind: str = kind, method: str = method.name) -> None:
                transfer(out, Hostile(noise=0.3), model(kind), method=method)

            yield job(f"{kind}, {method.name}", make, kind)


def students() -> Iterator[Job]:
    for kind in KINDS:
        for method in METHODS:

            def make(out: Path, kind: str = kind, method: str = method.name) -> None:
                transfer(out, model(kind), Hostile(), method=method)

            yield job(f"{kind}, {method.name}", make, kind)


def roles() -> Iterator[Job]:
    for kind in KINDS:
        for name, given in ROLES.items():

            def make(out: Path, kind: str = kind, given: Any = given) -> None:
                given(out, kind)

            yield job(f"{kind}, {name}", make, kind)


def _guarded(out: Path, kind: str, **given: Any) -> None:
    transfer(out, Hostile(noise=0.3), model(kind), guard=True, guard_data=guard_images(), **given)


def _referee(out: Path, kind: str) -> None:
    asked = {"guard": True, "guard_data": guard_images(), "labels": "none", "referee": model(kind)}
    transfer(out, Hostile(noise=0.3), Hostile(count=100), **asked)


def _table(out: Path, kind: str, *, top_k: int | None = None) -> None:
    """Predicted without our checks, as another program would."""
    loaded = gainfinder.load_model(model(kind))
    rows = [data(), val()]
    with torch.no_grad():
        logits = torch.cat([loaded.logits(_inputs(images)) for images in rows])
    ids = tuple(name for images in rows for name in images.ids)
    file = out.parent / "table.parquet"
    gainfinder.Predictions(model="other", ids=ids, logits=logits, target=None).write(file, top_k=top_k)
    transfer(out, Hostile(noise=0.3), f"table:{file}?num_classes=10", method="kl-dp")


def _bank(out: Path, kind: str, storage: str) -> None:
    asked = {"bank": out.parent / "bank", "bank_storage": storage, "bank_check": 8, "method": "kl-dp-u"}
    transfer(out, Hostile(noise=0.3), model(kind), **asked)


def _several(out: Path, kind: str, strategy: str, **given: Any) -> None:
    asked = {"strategy": strategy, "method": "kl-dp-u", **given}
    transfer(out, Hostile(noise=0.3), [Hostile(count=100), model(kind)], **asked)


ROLES: dict[str, Callable[[Path, str], None]] = {
    "guard": _guarded,
    "guard without labels": lambda out, kind: _guarded(out, kind, labels="none", method="kl-dp-u"),
    "guard and at most": lambda out, kind: _guarded(out, kind, labels="none", at_most=0.2),
    "guard of batch-norm": lambda out, kind: transfer(
        out, Hostile(batch_norm=True), model(kind), guard=True, guard_data=guard_images(), labels="none"
    ),
    "its own recipe": lambda out, kind: _guarded(
        out, kind, preset=None, epochs=12, labels="none", batch_size=16, trials=True
    ),
    "its own recipe, labels": lambda out, kind: _guarded(out, kind, preset=None, epochs=4),
    "as a student, guarded": lambda out, kind: transfer(
        out, model(kind), Hostile(), guard=True, guard_data=guard_images(), labels="none", preset=None, epochs=4
    ),
    "mixed precision": lambda out, kind: transfer(out, Hostile(noise=0.3), model(kind), precision="bf16"),
    "mixup": lambda out, kind: transfer(out, Hostile(noise=0.3), model(kind), mixup=0.5, method="kl"),
    "referee": _referee,
    "table": _table,
    "table of the first classes": lambda out, kind: _table(out, kind, top_k=3),
    "bank, full": lambda out, kind: _bank(out, kind, "full"),
    "bank, top-3": lambda out, kind: _bank(out, kind, "top-3"),
    "sequential": lambda out, kind: _several(out, kind, "sequential"),
    "soup": lambda out, kind: _several(out, kind, "soup"),
    "parallel": lambda out, kind: _several(out, kind, "parallel"),
    "controls": lambda out, kind: transfer(out, Hostile(noise=0.3), model(kind), control=("copy", "labels")),
    "head": lambda out, kind: _head(out, model(kind), data()),
}


def _head(out: Path, one: Any, images: Images) -> None:
    gainfinder.fit_head(one, images, val=val(), device="cpu", workers=0, out=out)


def small_sets() -> Iterator[Job]:
    for name, images in sets().items():
        for what, given in {
            "measured on": {"val": images},
            "learned from": {"data": images},
            "guarded by": {"guard": True, "guard_data": images},
            "guarded by, no labels": {"guard": True, "guard_data": images, "labels": "none"},
            "all": {"val": images, "data": images, "guard": True, "guard_data": images},
            "nothing set apart": {"val": None, "data": images, "guard": True},
        }.items():
            for method in ("kl-dp", "kl-dp-cal", "kl-prod-cal-u", "dist-dp-u", "cd", "crd", "kl-warmup", None):

                def make(out: Path, method: str | None = method, given: Any = given) -> None:
                    asked = {**given, "method": method}
                    if asked.get("labels") == "none" and method in {"kl-dp", "kl-dp-cal", "cd", "crd"}:
                        asked["labels"] = "auto"
                    transfer(out, Hostile(noise=0.3), Hostile(), **asked)

                yield Job(name=f"{what} {name}, {method}", make=make)
        for what in ("plain", "batch-norm"):

            def head(out: Path, images: Images = images, what: str = what) -> None:
                _head(out, Hostile(batch_norm=what == "batch-norm"), images)

            yield Job(name=f"head fitted to {name}, {what}", make=head)


def class_counts() -> Iterator[Job]:
    for classes in (1, 2, 21841):
        for method in METHODS:
            for guard in (False, True):

                def make(out: Path, classes: int = classes, method: str = method.name, guard: bool = guard) -> None:
                    images = {"data": of_classes(classes, data()), "val": of_classes(classes, val())}
                    held_out = {"guard": guard, "guard_data": of_classes(classes, guard_images()) if guard else None}
                    one, other = Hostile(classes=classes, noise=0.3), Hostile(classes=classes)
                    transfer(out, one, other, method=method, **images, **held_out)

                yield Job(name=f"{classes} classes, {method.name}{', guard' * guard}", make=make)

        def scan(out: Path, classes: int = classes) -> None:
            models = [Hostile(classes=classes, noise=0.5), Hostile(classes=classes)]
            gainfinder.scan(models, of_classes(classes, val()), device="cpu", workers=0, out=out)

        yield Job(name=f"scan of {classes} classes", make=scan)


def diverging() -> Iterator[Job]:
    for rate in (1e2, 1e4, 1e6, 1e9):
        for name, given in DIVERGING.items():

            def make(out: Path, rate: float = rate, given: Any = given) -> None:
                asked = {"lr": rate, "optimizer": "sgd", "epochs": 4, **given}
                teachers = asked.pop("teachers", Hostile())
                transfer(out, Hostile(noise=0.3, batch_norm=asked.pop("batch_norm", False)), teachers, **asked)

            yield Job(name=f"lr {rate:g}, {name}", make=make)


TWO = [Hostile(count=100), Hostile()]
DIVERGING: dict[str, dict[str, Any]] = {
    **{f"method {method.name}": {"method": method.name} for method in METHODS},
    "adamw": {"optimizer": "adamw", "preset": None},
    "guard": {"guard": True, "guard_data": guard_images()},
    "guard without labels": {"guard": True, "guard_data": guard_images(), "labels": "none"},
    "batch-norm": {"batch_norm": True},
    "batch-norm, guard": {"batch_norm": True, "guard": True, "guard_data": guard_images(), "labels": "none"},
    "an average": {"ema_decay": 0.9},
    "checkpoints": {"checkpoint_every": 1},
    "plateau": {"schedule": "plateau", "guard": True, "guard_data": guard_images(), "preset": None, "trials": False},
    "sequential": {"strategy": "sequential", "teachers": TWO, "method": "kl-dp-u"},
    "sequential, guard": {
        "strategy": "sequential", "teachers": TWO, "method": "kl-dp-u", "guard": True, "guard_data": guard_images(),
    },
    "soup": {"strategy": "soup", "teachers": TWO, "method": "kl-dp-u"},
    "soup, guard": {
        "strategy": "soup", "teachers": TWO, "method": "kl-dp-u", "guard": True, "guard_data": guard_images(),
    },
    "parallel": {"strategy": "parallel", "teachers": TWO, "method": "kl-dp-u"},
    "controls": {"control": ("copy", "labels")},
    "bf16": {"precision": "bf16"},
    "mixup": {"mixup": 0.5, "method": "kl"},
}  # fmt: skip
GROUPS: dict[str, Callable[[], Iterator[Job]]] = {
    "predictions": predictions,
    "scans": scans,
    "roles": roles,
    "diverging": diverging,
    "small sets": small_sets,
    "class counts": class_counts,
    "teachers": teachers,
    "students": students,
}


if __name__ == "__main__":
    main()
