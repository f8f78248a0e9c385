"""Models as a hostile or unlucky hand leaves them: valid tiny files of every kind, changed in bytes and in structure.

Each case is loaded in a process of its own, forked from one that has imported everything, so that what hangs, takes all
memory or kills the process is an outcome like any other.
"""

import argparse
import faulthandler
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import timm
import torch
from timm.models import save_for_hf

from gainfinder.errors import GainfinderError
from gainfinder.models import Classifier, load_teacher

GOOD = ("loaded", "refused")
"""Outcomes that a user can live with; all others are faults."""
KINDS = ("timm", "timm-bin", "transformers", "file-safetensors", "file-pt", "factory", "onnx", "parquet", "csv")
MEMORY = 3_000_000_000
"""Bytes of address space that a case may take beyond what it starts with."""

_NET = """
import torch
from torch import nn

CONFIG = {"input_size": (3, 16, 16), "mean": 0.5, "std": 0.5, "label_names": ["a", "b", "c"]}


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        )


def net():
    model = Net()
    model.pretrained_cfg = CONFIG
    return model
"""
_FACTORIES = (
    "raise ValueError('no\\nluck')",
    "raise BaseException",
    "import sys; sys.exit(3)",
    "return None",
    "return net",
    "return 3",
    "print('hello'); return Net()",
    "return nn.Linear(10**9, 10**9)",
    "m = net(); m.append(nn.Softmax(1)); return m",
    "m = net(); m.append(nn.Sigmoid()); return m",
    "return nn.DataParallel(net())",
    "m = net(); m[0].weight.data.fill_(float('nan')); return m",
    "m = net(); m[5].weight.data.fill_(3e38); m[5].bias.data.fill_(3e38); return m",
    "with torch.device('meta'): return Net()",
    "m = net(); m[5] = nn.LazyLinear(3); return m",
    "m = net(); m.unused = nn.LazyLinear(3); m.forward = lambda x: x.mean((2, 3)); return m",
    "m = net(); m.forward = lambda x: {'out': x}; return m",
    "m = net(); m.forward = lambda x: x.mean((1, 2, 3)); return m",
    "m = net(); m.forward = lambda x: x.mean((2, 3)) * float('nan'); return m",
    "m = net(); m.forward = lambda x: x.mean((2, 3)).long(); return m",
    "m = net(); m.forward = lambda x: x.mean((2, 3))[:, :0]; return m",
    "m = net(); m.pretrained_cfg = {'input_size': 'large'}; return m",
    "m = net(); m.pretrained_cfg = {**CONFIG, 'label_names': 5}; return m",
    "m = net(); m.pretrained_cfg = {**CONFIG, 'mean': [None] * 3}; return m",
    "m = net(); m.pretrained_cfg = {**CONFIG, 'crop_pct': float('nan')}; return m",
    "m = net(); m.pretrained_cfg = [1]; return m",
    "m = net(); m.lock = __import__('threading').Lock(); return m",
    "return torch.jit.script(net())",
    "return torch.nn.utils.weight_norm(net()[5])",
    "def deep(n): return deep(n + 1)\n    return deep(0)",
    "return net(",
    "return \u0000",
)
_ODD: tuple[Any, ...] = (
    None, True, -1, 0, 10**9, 10**400, 1e-300, float("nan"), float("inf"), "", "x" * 20000, "../../etc/passwd", "\0",
    "²", [], {}, [[]], {"": {}}, ["a", "a"], [None] * 3, [0, 0, 0], [1e9] * 3, {"0": "a", "x": 1}, "resnet18",
    "9" * 5000,
)  # fmt: skip
_QUERIES = (
    "size=0", "size=16x", "mean=nan", "std=0", "crop_pct=0", "output=probs", "output=sigmoid", "output=x",
    "classes=a,b", "classes=@missing.txt", "num_classes=3", "num_classes=99999999999", "output_name=y", "size=20",
    "interpolation=none",
)  # fmt: skip
_INTEGERS = (0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)


@dataclass(frozen=True, kw_only=True)
class Seed:
    """A valid model: its reference, with `{}` in its folder's place, and the files that are changed."""

    reference: str
    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a case: `loaded`, `refused`, or a fault in capitals; and the message or the end of a traceback."""

    word: str
    text: str

    @property
    def good(self) -> bool:
        return self.word in GOOD


def make_seeds(folder: Path) -> dict[str, Seed]:
    """Write a valid model of each kind into a folder of its name."""
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = timm.create_model("test_resnet", num_classes=3)
        save_for_hf(net, str(folder / "timm"), model_config={"label_names": ["a", "b", "c"]}, safe_serialization=True)
        shutil.copy(folder / "timm" / "config.json", folder / "timm-bin")
        torch.save(net.state_dict(), folder / "timm-bin" / "pytorch_model.bin")
        _make_transformers(folder / "transformers")
        for kind in ("file-safetensors", "file-pt", "factory"):
            (folder / kind / "net.py").write_text(_NET)
        space: dict[str, Any] = {}
        exec(_NET, space)
        weights = space["net"]().state_dict()
        safetensors.torch.save_file(weights, folder / "file-safetensors" / "w.safetensors")
        about = {"args": argparse.Namespace(lr=0.1), "best": np.float64(0.5), "epoch": 3}
        torch.save({"state_dict": weights, **about}, folder / "file-pt" / "w.pt")
    _make_onnx(folder / "onnx" / "net.onnx")
    _make_tables(folder)
    return {
        "timm": Seed(reference="local-dir:{}", files=("config.json", "model.safetensors")),
        "timm-bin": Seed(reference="local-dir:{}", files=("config.json", "pytorch_model.bin")),
        "transformers": Seed(reference="hf:{}", files=("config.json", "preprocessor_config.json", "model.safetensors")),
        "file-safetensors": Seed(reference="file:{}/net.py:net@{}/w.safetensors", files=("w.safetensors",)),
        "file-pt": Seed(reference="file:{}/net.py:net@{}/w.pt", files=("w.pt",)),
        "factory": Seed(reference="file:{}/net.py:made?size=16", files=("net.py",)),
        "onnx": Seed(reference="onnx:{}/net.onnx?mean=0.5&std=0.5", files=("net.onnx",)),
        "parquet": Seed(reference="table:{}/t.parquet", files=("t.parquet",)),
        "csv": Seed(reference="table:{}/t.csv", files=("t.csv",)),
    }


def run_case(seed: Seed, source: Path, folder: Path, *, number: str, timeout_s: float = 60.0) -> Outcome:
    """Change a copy of a valid model, and load it.

    Args:
        seed: the valid model.
        source: its folder.
        folder: a folder for the copy, which does not exist yet.
        number: what the changes are drawn from; the same gives the same.
        timeout_s: seconds after which a case hangs.
    """
    shutil.copytree(source, folder)
    draw = random.Random(number)
    reference = seed.reference.replace("{}", str(folder))
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        with suppress(Exception):  # a second change of what the first made no longer possible
            _change(folder / draw.choice(seed.files), draw)
    if draw.random() < 0.1:
        reference = _change_reference(reference, draw)
    return outcome_of(lambda: _use(reference), folder.with_suffix(".outcome"), timeout_s=timeout_s)


def outcome_of(action: Callable[[], None], report: Path, *, timeout_s: float) -> Outcome:
    """Run something in a forked process and say what became of it."""
    child = os.fork()
    if child == 0:
        _in_child(action, report)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.005)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return Outcome(word="HANG", text=f"more than {timeout_s:g} s")
    if os.WIFSIGNALED(status) or not report.exists():
        return Outcome(word="CRASH", text=f"wait status {status}")
    word, _, text = report.read_text(encoding="utf-8", errors="replace").partition("\n")
    return Outcome(word=word, text=text)


def _in_child(action: Callable[[], None], report: Path) -> None:
    faulthandler.disable()  # pytest's would write a page for each crash
    word, text = "loaded", ""
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        action()
    except GainfinderError as error:
        word, text = "refused", str(error)
        if "\n" in text or not text.strip():
            word = "LINES"
    except BaseException:
        word, text = "TRACEBACK", "\n".join(traceback.format_exc().splitlines()[-4:])
    report.write_text(f"{word}\n{text}", encoding="utf-8", errors="replace")
    sys.stdout.flush()
    os._exit(0)


def _use(reference: str) -> None:
    """Load a model and ask it once, as `predict` does."""
    model = load_teacher(reference)
    if not isinstance(model, Classifier):
        model.lookup(model.ids[:2])
        return
    with torch.no_grad():
        logits = model.logits(torch.randn(2, *model.image_preprocessing.input_size))
    assert bool(torch.isfinite(logits).all()), "logits are not finite, and nothing was said"


def _change(path: Path, draw: random.Random) -> None:
    by_ending: dict[str, Callable[[Path, random.Random], None]] = {
        ".json": _change_json,
        ".safetensors": _change_safetensors,
        ".pt": _change_pickle,
        ".bin": _change_pickle,
        ".py": _change_factory,
        ".onnx": _change_onnx,
        ".parquet": _change_parquet,
        ".csv": _change_csv,
    }
    if not path.is_file():  # an earlier change has put something else there
        return
    chance = draw.random()
    if chance < 0.04:
        _change_kind(path, draw)
    elif chance < 0.4 and path.suffix != ".py":
        _change_bytes(path, draw)
    else:
        by_ending[path.suffix](path, draw)


def _change_kind(path: Path, draw: random.Random) -> None:
    path.unlink()
    choice = draw.choice(("missing", "folder", "fifo", "link", "empty"))
    if choice == "folder":
        path.mkdir()
    elif choice == "fifo":
        os.mkfifo(path)
    elif choice == "link":
        path.symlink_to(path)
    elif choice == "empty":
        path.write_bytes(b"")


def _change_bytes(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    # headers and directories lie at the ends
    at = draw.choice((draw.randrange(min(200, len(data))), draw.randrange(len(data)), -1 - draw.randrange(200))) % len(
        data
    )
    choice = draw.choice(("flip", "cut", "noise", "zero", "insert", "delete", "integer", "twice"))
    length = draw.choice((1, 4, 16, 300))
    if choice == "flip":
        data[at] ^= 1 << draw.randrange(8)
    elif choice == "cut":
        del data[at:]
    elif choice == "noise":
        data[at : at + length] = draw.randbytes(length)
    elif choice == "zero":
        data[at : at + length] = bytes(length)
    elif choice == "insert":
        data[at:at] = draw.randbytes(length)
    elif choice == "delete":
        del data[at : at + length]
    elif choice == "integer":
        data[at : at + 8] = struct.pack("<Q", draw.choice(_INTEGERS))
    else:
        data += data[at:]
    path.write_bytes(bytes(data))


def _change_json(path: Path, draw: random.Random) -> None:
    if draw.random() < 0.1:
        depth = draw.choice((60, 100_000))
        path.write_text(path.read_text().rstrip()[:-1] + ', "deep": ' + "[" * depth + "]" * depth + "}")
        return
    path.write_text(json.dumps(_odd_json(json.loads(path.read_text()), draw)))


def _odd_json(value: Any, draw: random.Random) -> Any:
    """The value with one node of it replaced, removed or added."""
    holders = [holder for holder in _holders(value) if holder]
    holder = draw.choice(holders)
    key: Any = draw.choice(list(holder)) if isinstance(holder, dict) else draw.randrange(len(holder))
    choice = draw.random()
    if choice < 0.15:
        del holder[key]
    elif choice < 0.25 and isinstance(holder, dict):
        holder["auto_map"] = {"AutoModelForImageClassification": "own.Net", "AutoConfig": "own.Config"}
    else:
        holder[key] = draw.choice(_ODD)
    return value


def _holders(value: Any) -> list[Any]:
    if not isinstance(value, dict | list):
        return []
    inner = value.values() if isinstance(value, dict) else value
    return [value, *(holder for one in inner for holder in _holders(one))]


def _change_safetensors(path: Path, draw: random.Random) -> None:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = data[8 : 8 + length], data[8 + length :]
    if draw.random() < 0.2:
        weights = safetensors.torch.load_file(path)
        name = draw.choice(sorted(weights))
        weights[name] = (
            draw.choice((torch.full_like, torch.zeros_like))(weights[name], *[float("nan")][:1])
            if weights[name].is_floating_point() and draw.random() < 0.5
            else torch.zeros(draw.choice((0, 1, 7)))
        )
        safetensors.torch.save_file(weights, path)
        return
    if draw.random() < 0.1:
        header = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    else:
        header = json.dumps(_odd_json(json.loads(header), draw)).encode()
    claimed = draw.choice(_INTEGERS) if draw.random() < 0.15 else len(header)
    path.write_bytes(struct.pack("<Q", claimed) + header + body)


def _change_pickle(path: Path, draw: random.Random) -> None:
    if draw.random() < 0.3:
        _change_member(path, draw)
        return
    content = torch.load(path, weights_only=False)
    weights = content.get("state_dict", content)
    name = draw.choice(sorted(weights))
    like = weights[name]
    odd: tuple[Any, ...] = (
        None, "x", 3, {}, [1], torch.zeros(0), torch.full_like(like.float(), float("nan")), like.double(), like.half(),
        like.to(torch.complex64), like.float().to_sparse(), torch.zeros(1).expand(10**12), like.to("meta"),
        torch.nn.Linear(2, 2), argparse.Namespace(x=argparse), np.zeros(3), np.array([print], dtype=object),
    )  # fmt: skip
    weights[name if draw.random() < 0.7 else draw.choice(("", "module.x", "criterion.weight", 5))] = draw.choice(odd)
    if draw.random() < 0.2:
        content = draw.choice(([content], {"own": content}, {"a": content, "b": content}, None, like, {}))
    torch.save(content, path, _use_new_zipfile_serialization=draw.random() < 0.5)


def _change_member(path: Path, draw: random.Random) -> None:
    """Change the bytes of one member of the zip archive, checksums right."""
    with zipfile.ZipFile(path) as archive:
        members = {name: bytearray(archive.read(name)) for name in archive.namelist()}
    name = draw.choice([name for name in members if name.endswith("data.pkl")] + list(members))
    for _ in range(draw.choice((1, 3))):
        if members[name]:
            members[name][draw.randrange(len(members[name]))] = draw.randrange(256)
    if draw.random() < 0.2:
        del members[name]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, bytes(data))


def _change_factory(path: Path, draw: random.Random) -> None:
    path.write_text(f"{_NET}\n\ndef made():\n    {draw.choice(_FACTORIES)}\n")


def _change_onnx(path: Path, draw: random.Random) -> None:
    import onnx

    model = onnx.load(path)
    choice = draw.randrange(7)
    if choice == 0:
        size = model.graph.input[0].type.tensor_type.shape.dim[draw.randrange(4)]
        size.dim_value = draw.choice((0, -1, 1, 5, 10**6, 2**62))
    elif choice == 1:
        model.graph.input[0].type.tensor_type.elem_type = draw.choice((0, 2, 3, 7, 10, 11, 99))
    elif choice == 2:
        tensor = draw.choice(list(model.graph.initializer))
        tensor.data_location = onnx.TensorProto.EXTERNAL
        where = draw.choice(("../secret", "/etc/passwd", "/dev/zero", "net.onnx", "", "a\0b", "x" * 5000))
        tensor.external_data.add(key="location", value=where)
        tensor.external_data.add(key="length", value=draw.choice(("-1", "10", "99999999999", "x")))
        tensor.ClearField("raw_data")
    elif choice == 3:
        node = draw.choice(list(model.graph.node))
        node.op_type = draw.choice(("Softmax", "Nothing", "Loop", "", "Identity"))
    elif choice == 4:
        tensor = draw.choice(list(model.graph.initializer))
        tensor.raw_data = draw.choice((b"\xff" * len(tensor.raw_data), b"", tensor.raw_data * 2))
    elif choice == 5:
        tensor = draw.choice(list(model.graph.initializer))
        tensor.dims[0] = draw.choice((0, -1, 1, 2**40))
    else:
        del model.graph.node[draw.randrange(len(model.graph.node))]
    path.write_bytes(model.SerializeToString())


def _change_parquet(path: Path, draw: random.Random) -> None:
    table = pq.read_table(path)
    choice = draw.randrange(6)
    if choice == 0:
        about = _odd_json(json.loads(table.schema.metadata[b"gainfinder"]), draw)
        text = draw.choice((json.dumps(about), json.dumps(draw.choice(_ODD)), "[" * 10000, ""))
        table = table.replace_schema_metadata({"gainfinder": text})
    elif choice == 1:
        table = table.append_column(draw.choice(table.column_names), table.column(draw.randrange(table.num_columns)))
    elif choice == 2:
        odd: Any = draw.choice(([None] * 4, [[1.0]] * 4, [[1.0, None, 2.0]] * 4, [["a"]] * 4, [[]] * 4, [1.0] * 4))
        table = table.set_column(
            draw.randrange(table.num_columns), draw.choice(("logits", "probs", "id")), pa.array(odd)
        )
    elif choice == 3:
        table = table.slice(0, draw.choice((0, 1)))
    elif choice == 4:
        table = table.append_column("classes", pa.array([draw.choice(([0, 1, 2], [0, 0, 0], [-1, 5, 2**40], []))] * 4))
    else:
        values = draw.choice(([float("nan")] * 3, [float("inf"), 0.0, 0.0], [1e38] * 3, [0.2] * 3))
        table = table.drop_columns("logits").append_column(
            draw.choice(("logits", "probs", "log_probs")), pa.array([values] * 4)
        )
    pq.write_table(table, path)


def _change_csv(path: Path, draw: random.Random) -> None:
    lines = path.read_text().splitlines()
    at = draw.randrange(len(lines))
    cells = lines[at].split(",")
    cells[draw.randrange(len(cells))] = draw.choice(
        (
            "",
            "nan",
            "inf",
            "1e999",
            "9" * 5000,
            "x" * 100_000,
            '"',
            "\0",
            "prob:a",
            "logit:a",
            "class_1",
            "id",
            "-5",
            "½",
        )
    )
    lines[at] = ",".join(cells if draw.random() < 0.8 else cells * 2)
    path.write_text("\n".join(lines), encoding=draw.choice(("utf-8", "utf-8", "utf-16")))


def _change_reference(reference: str, draw: random.Random) -> str:
    if draw.random() < 0.6:
        return reference + ("&" if "?" in reference else "?") + draw.choice(_QUERIES)
    prefix, _, rest = reference.partition(":")
    bad = draw.choice((f"~nosuchuser/{rest}", "x" * 5000, "/" + "x" * 300, rest + "\0", "/dev/null", ".", "~"))
    return f"{prefix}:{bad.partition('?')[0]}" + (":net" if prefix == "file" and draw.random() < 0.5 else "")


def _make_transformers(folder: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    sizes: dict[str, Any] = {"image_size": 16, "patch_size": 8, "hidden_size": 16, "intermediate_size": 16}
    depths: dict[str, Any] = {"num_hidden_layers": 1, "num_attention_heads": 2}
    config = ViTConfig(**sizes, **depths, id2label={0: "a", 1: "b", 2: "c"}, label2id={"a": 0, "b": 1, "c": 2})
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)


def _make_onnx(path: Path) -> None:
    from onnx_files import Net, write

    write(path, Net(classes=3))


def _make_tables(folder: Path) -> None:
    ids = [f"{number}.png" for number in range(4)]
    values = np.random.default_rng(0).normal(size=(4, 3))
    about = {"model": "m", "class_names": ["a", "b", "c"], "num_classes": 3, "broken": [], "dropped_mass": 0.0}
    table = pa.table({"id": ids, "logits": [list(row) for row in values.astype(np.float32)]})
    pq.write_table(table.replace_schema_metadata({"gainfinder": json.dumps(about)}), folder / "parquet" / "t.parquet")
    rows = [",".join([name, *(f"{value:.4f}" for value in row)]) for name, row in zip(ids, values, strict=True)]
    (folder / "csv" / "t.csv").write_text("\n".join(["id,logit:a,logit:b,logit:c", *rows]) + "\n")
