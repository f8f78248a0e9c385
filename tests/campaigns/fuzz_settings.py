"""Feeds references, settings, study files, label maps, class lists and damaged results to whatever reads them.

    PYTHONPATH=tests/helpers python tests/campaigns/fuzz_settings.py [--runs 20000] [--seed 0] [--only KIND]

Nothing is trained: each case is read in this process, and a share of the settings goes through the command line. A case
is *accepted* or *refused* (one line, a `GainfinderError`); anything else that is raised is a *traceback*, more than
`SLOW_S` of processor time is *slow*, and a message of several lines or of thousands of characters is *unreadable*.
The seed of a case makes it again (`--case KIND SEED`). Exits with 1 at any traceback, slow or unreadable case.
"""

import argparse
import functools
import json
import logging
import math
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer.testing

import hostile_values as hostile
from gainfinder import report
from gainfinder.classes import read_label_map
from gainfinder.cli import app
from gainfinder.config import SETTINGS, TransferConfig, TransferSpec
from gainfinder.data import parse_data_ref
from gainfinder.errors import GainfinderError
from gainfinder.models.assembly import read_classes
from gainfinder.models.preprocessing import Preprocessing
from gainfinder.models.reference import parse_model_ref
from gainfinder.report import write_report
from gainfinder.report.drawing import Drawer
from gainfinder.results import RunFolder, read_head, read_ranking, read_scan
from gainfinder.study import StudyFolder, read_study, study_cells
from gainfinder.study.measures import read_measures
from gainfinder.workers import make_backend
from gainfinder.zoo.class_texts import read_class_names
from made_up_zoo import made_up_zoo

SLOW_S = 5.0
LONGEST_MESSAGE = 5000
PREFIXES = ("", "hf-hub:", "local-dir:", "torchvision:", "hf:", "file:", "onnx:", "table:", "fiel:", "x:")
KEYS = ("size", "mean", "std", "crop_pct", "crop_mode", "interpolation", "classes", "num_classes", "output", "bad")
STUDY = """[study]
students = ["a", "b"]
teachers = ["a", "b", ["a", "b"]]
name = "tried"
with_itself = true
[paths]
zoo = "zoo"
[models]
a = "local-dir:{zoo}/a"
b = { reference = "local-dir:{zoo}/b", family = "CNN" }
[data]
data = "digits#1/2"
val = "digits#2/2"
[settings]
epochs = 2
batch_size = 32
[axes]
seed = [0, 1]
[variants.kl]
method = "kl"
[variants.dp]
method = "kl-dp"
lr = 1e-3
[[exclude]]
student = "a"
teacher = "b*"
"""
CONFIG = {
    "student": {"reference": "a", "digest": "0", "classes": 3},
    "teachers": [{"reference": "b", "digest": None, "classes": None}],
    "data": {"reference": "digits", "samples": 5, "pixels": "0"},
    "val": {"reference": "digits", "samples": 5},
    "settings": {"lr": 0.1},
    "environment": {"torch": "2", "command": "gainfinder transfer"},
}


def model_reference(draw: random.Random, folder: Path) -> None:
    """A model reference, parsed, printed and, of numbers, made a preprocessing of."""
    base = draw.choice(PREFIXES) + draw.choice(("resnet18", "a.py:f", "a.py:f@w.pt", "a/b@c", hostile.text(draw)))
    settings = [
        f"{draw.choice(KEYS)}={draw.choice((hostile.number, hostile.text))(draw)}" for _ in range(draw.randrange(4))
    ]
    if draw.random() < 0.3:
        settings.append(f"size={hostile.number(draw)}x{hostile.number(draw)}")
    reference = base + ("?" + "&".join(settings) if settings else "")
    if draw.random() < 0.3:
        reference = hostile.mangled(reference, draw)
    found = parse_model_ref(reference)
    assert str(found) == reference, "it prints back"
    query = tuple((key, value) for key, value in found.query if key not in ("num_classes", "output", "output_name"))
    made = Preprocessing(input_size=(3, 224, 224)).with_overrides(query, reference=reference)
    edge = max(made.view_size) / made.crop_pct
    assert math.isfinite(edge) and edge <= 20_000, f"images of {edge:.0f} pixels"


def data_reference(draw: random.Random, folder: Path) -> None:
    """A data reference, parsed and printed."""
    base = draw.choice(("digits", "hfds/a/b", "torch/cifar10", "a/b.tar", hostile.text(draw)))
    query = draw.choice(("", "?split=train", f"?split={hostile.text(draw)}", f"?{hostile.text(draw)}"))
    part = draw.choice(("", f"#{hostile.number(draw)}/{hostile.number(draw)}", "#1/2"))
    reference = base + query + part
    if draw.random() < 0.3:
        reference = hostile.mangled(reference, draw)
    assert str(parse_data_ref(reference)) == reference, "it prints back"


def settings(draw: random.Random, folder: Path) -> None:
    """Settings of any type by name, and a specification of them."""
    names = [one.name for one in SETTINGS]
    given: dict[str, Any] = {draw.choice(names): hostile.value(draw) for _ in range(draw.randint(1, 3))}
    if draw.random() < 0.1:
        given[hostile.text(draw)] = 1
    config = TransferConfig(**given)
    spec = TransferSpec(student="a", teachers=("b",), data="digits", config=config)
    assert TransferSpec.from_json(spec.to_json()).digest() == spec.digest(), "it is read back"


def specification(draw: random.Random, folder: Path) -> None:
    """A specification as JSON, damaged."""
    spec = TransferSpec(student="a", teachers=("b",), data="digits")
    TransferSpec.from_json(_damaged_json(json.loads(spec.to_json()), draw))


def command_line(draw: random.Random, folder: Path) -> None:
    """`gainfinder transfer --dry-run` of a student that there is not, with options of any value."""
    words = ["transfer", "--student", "local-dir:no-such-folder", "--teacher", "local-dir:no-such-folder"]
    words += ["--data", draw.choice(("digits", hostile.text(draw))), "--out", str(folder / "out"), "--dry-run"]
    for one in draw.sample(SETTINGS, 2):
        word = draw.choice((hostile.number, hostile.text))(draw)
        words += [f"--{one.word}"] if one.kinds == (bool,) else [f"--{one.word}={word}"]
    _run([word.replace("\x00", "").encode("utf-8", "replace").decode() for word in words])


def engine(draw: random.Random, folder: Path) -> None:
    """Options of an engine, which is asked for and not started."""
    options = {hostile.text(draw): hostile.number(draw)} if draw.random() < 0.3 else {}
    names = ("cluster", "timeout_min", "slurm_partition", "gpus_per_node", "cpus_per_task", "slurm_mem_gb")
    options |= {draw.choice(names): draw.choice((hostile.number, hostile.text))(draw) for _ in range(2)}
    make_backend(draw.choice(("slurm", "slurm", "local", "x")), out=folder, options=options)


def study_command(draw: random.Random, folder: Path) -> None:
    """`gainfinder study plan` of a study whose models there are not, with overrides of any value."""
    (folder / "study.toml").write_text(STUDY)
    words = ["study", "plan", str(folder / "study.toml"), "--set", hostile.mangled("settings.epochs=1", draw)]
    _run([word.replace("\x00", "").encode("utf-8", "replace").decode() for word in words])


def study_file(draw: random.Random, folder: Path) -> None:
    """A study's file: damaged text, values of any type, bytes; its cells."""
    file = folder / "study.toml"
    kind = draw.randrange(6)
    if kind == 0:
        file.write_bytes(
            hostile.mangled(STUDY, draw).encode("utf-8", "surrogatepass") + draw.choice((b"", b"\xff", b"\0"))
        )
    elif kind == 1:
        file.write_text(f"a = {hostile.nested('[', ']', draw)}\n{STUDY}")
    elif kind == 2:
        key, name = (
            draw.choice(("settings", "axes", "paths", "exclude", "only", "variants.x")),
            draw.choice(SETTINGS).name,
        )
        table = f"[[{key}]]" if key in ("exclude", "only") else f"[{key}]"
        before = (
            STUDY.replace(f"[{key}]\n", f"[ignored_{key}]\n")
            if draw.random() < 0.2
            else STUDY.split(f"[{key}]", maxsplit=1)[0]
        )
        file.write_text(f"{before}\n{table}\n{name} = {_toml(hostile.value(draw))}\n", "utf-8", "replace")
    elif kind == 3:
        count = draw.choice((3, 100, 1000, 40_000))
        axes = "".join(f"{name} = [{', '.join(map(str, range(1, count)))}]\n" for name in ("epochs", "views", "top_k"))
        file.write_text(STUDY.replace("[axes]\n", f"[axes]\n{axes}") if count > 3 else STUDY + axes)
    elif kind == 4:
        file.write_bytes(b"\xef\xbb\xbf" + STUDY.encode())
    else:
        line = draw.choice(STUDY.splitlines())
        file.write_text(STUDY.replace(line, f"{line.split('=')[0]}= {_toml(hostile.value(draw))}"), "utf-8", "replace")
    study = read_study(file, [hostile.mangled("axes.seed=[1]", draw)] if draw.random() < 0.3 else [])
    cells = study_cells(study, folder)
    assert type(study).from_json(study.to_json()) == study and len({one.key for one in cells}) == len(cells)


def label_map(draw: random.Random, folder: Path) -> None:
    """A label map."""
    file = folder / f"map.{draw.choice(('json', 'csv', 'tsv', 'txt'))}"
    if file.suffix == ".json":
        file.write_text(_damaged_json({"cat": "dog", "1": 2}, draw), "utf-8", "surrogatepass")
    else:
        file.write_bytes(hostile.mangled('teacher,student\ncat,dog\n"a,b",c\n', draw).encode("utf-8", "surrogatepass"))
    read_label_map(file)


def class_list(draw: random.Random, folder: Path) -> None:
    """A list of class names, as `?classes=@file` and as a scan's `--class-names`."""
    file = folder / f"names.{draw.choice(('json', 'txt'))}"
    lines = hostile.mangled("cat\ndog\nfrog\n", draw)
    content = _damaged_json(["cat", "dog"], draw) if file.suffix == ".json" else lines
    file.write_bytes(content.encode("utf-8", "surrogatepass"))
    if draw.random() < 0.5:
        read_class_names(file)
    else:
        where = draw.choice((str(file), str(folder), hostile.text(draw)))
        read_classes((("classes", f"@{where}"),), reference="a?classes=@names")


def result_files(draw: random.Random, folder: Path) -> None:
    """Files of results that gainfinder reads back, damaged."""
    run = RunFolder(folder)
    text = _damaged_json(CONFIG, draw)
    if draw.random() < 0.1:
        text = hostile.nested('{"student":', "}", draw)
    readers: dict[str, Callable[[], object]] = {
        "config.json": lambda: run.check(CONFIG),
        "result.json": run.read_result,
        "epochs.jsonl": run.read_epochs,
        "trials.jsonl": run.read_trials,
        "scan.json": lambda: read_scan(folder),
        "ranking.json": lambda: read_ranking(folder),
        "head.json": lambda: read_head(folder),
        "cell.json": lambda: read_measures(folder / "cell.json"),
        "study.json": lambda: StudyFolder(folder).all_cells(),
    }
    name = draw.choice(list(readers))
    if name == "study.json":
        (folder / "study.toml").write_text(STUDY)
        text = _damaged_json(json.loads(read_study(folder / "study.toml").to_json()), draw)
    (folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    readers[name]()


def scan_page(draw: random.Random, folder: Path) -> None:
    """The page of a scan whose document is damaged, its pairs beside it as they were; figures are not drawn."""
    shutil.copytree(_scan(), folder, dirs_exist_ok=True)
    document = json.loads((folder / "scan.json").read_text(encoding="utf-8"))
    (folder / "scan.json").write_bytes(_damaged_json(document, draw, deepest=6).encode("utf-8", "surrogatepass"))
    drawer = report.__dict__["Drawer"]
    report.__dict__["Drawer"] = lambda: Drawer(command=["no-such-command-of-this-campaign"])
    try:
        write_report(folder)
    finally:
        report.__dict__["Drawer"] = drawer


@functools.cache
def _scan() -> Path:
    """A scan of a few models that are made up."""
    return made_up_zoo(Path(tempfile.mkdtemp()) / "scan", families=[2, 2])


def notes(draw: random.Random, folder: Path) -> None:
    """What workers note of a study's cells, damaged: never an error."""
    (folder / "study.toml").write_text(STUDY)
    study, out = read_study(folder / "study.toml"), StudyFolder(folder / "out")
    out.claim(study)
    cell = out.all_cells()[0]
    note = {"cell": cell.key, "label": "x", "worker": 0, "host": "h", "pid": 1, "stage": "s", "share": 0.5, "epoch": 1}
    failure = {"error": "e", "kind": "k", "trace": "", "when": 0.0, "host": "h"}
    for kind, content in (("running", note), ("failed", failure)):
        text = _damaged_json(content, draw)
        (out.path / kind / f"{cell.key}.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        out.failure(cell), out.state(cell), out.progress(cell)
        result = typer.testing.CliRunner().invoke(app, ["study", "status", str(out.path)])
        assert result.exit_code in (0, 1), result.output
    except GainfinderError as error:
        raise AssertionError(f"a note is not to be refused: {error}") from error


KINDS: dict[str, tuple[Callable[[random.Random, Path], None], float]] = {
    one.__name__: (one, share)
    for one, share in (
        (model_reference, 6.0),
        (data_reference, 3.0),
        (settings, 6.0),
        (specification, 2.0),
        (study_file, 6.0),
        (label_map, 2.0),
        (class_list, 2.0),
        (result_files, 4.0),
        (scan_page, 0.5),
        (notes, 0.3),
        (command_line, 0.3),
        (study_command, 0.05),
        (engine, 0.5),
    )
}
"""Each kind of case, and how often it comes."""


def case(kind: str, seed: int) -> tuple[str, str]:
    """Run one case.

    Returns:
        `accepted`, `refused`, `traceback`, `slow` or `unreadable`, and what there is to say of the latter three.
    """
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        try:
            KINDS[kind][0](random.Random(f"{kind} {seed}"), Path(folder))
        except GainfinderError as error:
            message = str(error)
            bad = not message.strip() or "\n" in message.strip() or len(message) > LONGEST_MESSAGE
            outcome, about = ("unreadable", repr(message[:300])) if bad else ("refused", "")
        except Exception:
            outcome, about = "traceback", traceback.format_exc(limit=-3)
        else:
            outcome, about = "accepted", ""
        took_s = time.process_time() - began
    return ("slow", f"{took_s:.1f} s") if took_s > SLOW_S and outcome in ("accepted", "refused") else (outcome, about)


def campaign(runs: int, *, seed: int = 0, only: str | None = None) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Run many cases.

    Returns:
        How often each kind had which outcome, and a text for each that is a mistake of gainfinder.
    """
    draw = random.Random(seed)
    counts: Counter[tuple[str, str]] = Counter()
    mistakes: list[str] = []
    for number in range(runs):
        if number % 1000 == 999:
            print(f"{number + 1:,} cases, {len(mistakes)} mistakes", file=sys.stderr, flush=True)
        kind = only or draw.choices(list(KINDS), [share for _, share in KINDS.values()])[0]
        outcome, about = case(kind, seed * 1_000_003 + number)
        counts[kind, outcome] += 1
        if about:
            mistakes.append(f"--case {kind} {seed * 1_000_003 + number}: {outcome}\n{about[-1500:]}")
    return counts, mistakes


def _run(words: list[str]) -> None:
    """A command in this process: refused where it exits with 2 and one line."""
    result = typer.testing.CliRunner().invoke(app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code == 2:
        raise GainfinderError(result.output.strip().splitlines()[-1] if result.output.strip() else "")
    assert result.exit_code == 0, f"exit code {result.exit_code}: {result.output[-300:]}"


def _damaged_json(document: object, draw: random.Random, *, deepest: int = 3) -> str:
    """A document with values of other types, or its text with pieces out of place."""
    kind = draw.randrange(5)
    if kind == 0:
        return hostile.mangled(json.dumps(document), draw)
    if kind == 1:
        return draw.choice((hostile.nested("[", "]", draw), "", "null", "[]", "{}", "1" * 5000, "NaN", '"\\ud800"'))
    place, holder = document, document
    document = place = holder = json.loads(json.dumps(document))
    for _ in range(draw.randint(1, deepest)):
        if isinstance(place, dict | list) and place:
            holder = place
            key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
            place = place[key]
    if holder is place:
        return json.dumps(hostile.value(draw))
    if kind == 2 and isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = None
    text = json.dumps(document)
    if kind > 2:
        sys.set_int_max_str_digits(0)
        try:
            text = text.replace("null", json.dumps(hostile.value(draw)), 1)
        finally:
            sys.set_int_max_str_digits(4300)
    return text


def _toml(value: object) -> str:
    """A value in TOML."""
    if isinstance(value, bool) or value is None:
        return "true" if value else "false"
    if isinstance(value, int):
        return hex(value) if value > 10**40 else str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    assert isinstance(value, dict)
    return "{" + ", ".join(f"{json.dumps(name)} = {_toml(inner)}" for name, inner in value.items()) + "}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(KINDS))
    parser.add_argument("--case", nargs=2, metavar=("KIND", "SEED"))
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    logging.getLogger("gainfinder").setLevel(logging.CRITICAL)  # notes are of no use here
    if options.case:
        print(*case(options.case[0], int(options.case[1])), sep="\n")
        return
    began = time.monotonic()
    counts, mistakes = campaign(options.runs, seed=options.seed, only=options.only)
    for kind in KINDS:
        told = ", ".join(f"{count:,} {outcome}" for (one, outcome), count in sorted(counts.items()) if one == kind)
        if told:
            print(f"{kind}: {told}")
    print(f"{options.runs:,} cases in {time.monotonic() - began:.0f} s, {len(mistakes)} mistakes")
    print(*mistakes[:20], sep="\n")
    sys.exit(1 if mistakes else 0)


if __name__ == "__main__":
    main()
