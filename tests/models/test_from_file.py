"""Models from a Python file of the user."""

import os
import sys
from pathlib import Path

import pytest
import torch

from gainfinder.errors import ModelError
from gainfinder.models import load_model

NET = """
from dataclasses import dataclass
from torch import nn
from {sibling} import WIDTH

@dataclass
class Settings:
    width: int = WIDTH

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(3 * 8 * 8, Settings().width))

def bare():
    return Net()

def net():
    model = Net()
    model.pretrained_cfg = {{"input_size": (3, 8, 8), "mean": 0.5, "label_names": ["a", "b"], "crop_pct": 1.0}}
    return model

def number():
    return 3

def broken():
    raise ValueError("no luck\\nat all")

CONSTANT = 1
"""


def written(folder: Path, width: int = 2) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "sibling_layers.py").write_text(f"WIDTH = {width}")
    path = folder / "net.py"
    path.write_text(NET.format(sibling="sibling_layers"))
    return path


def test_a_file_is_loaded_saved_and_loaded_again(tmp_path: Path) -> None:
    path = written(tmp_path)
    classifier = load_model(f"file:{path}:net?std=0.25&classes=x,y")
    assert classifier.class_names == ("x", "y")
    assert classifier.preprocessing.mean == (0.5, 0.5, 0.5)
    assert classifier.preprocessing.std == (0.25, 0.25, 0.25)
    saved = classifier.save(classifier, tmp_path / "out")
    assert saved == f"file:{path}:net@{tmp_path}/out/model.safetensors?std=0.25&classes=x,y"
    again = load_model(saved)
    assert again.weights_digest() == classifier.weights_digest()
    assert again.preprocessing == classifier.preprocessing
    assert load_model(f"file:{path}:net").class_names == ("a", "b")


def test_files_and_siblings_of_one_name_do_not_clash(tmp_path: Path) -> None:
    path_before = list(sys.path)
    first = load_model(f"file:{written(tmp_path / 'a', 2)}:bare?size=8")
    second = load_model(f"file:{written(tmp_path / 'b', 5)}:bare?size=8")
    assert (first.num_classes, second.num_classes) == (2, 5)
    assert type(first.module).__module__ != type(second.module).__module__
    assert sys.path == path_before
    assert "sibling_layers" not in sys.modules
    assert load_model(f"file:{written(tmp_path / 'b', 6)}:bare?size=8").num_classes == 6


def test_mistakes_are_told(tmp_path: Path) -> None:
    path = written(tmp_path)

    def refuse(reference: str, message: str) -> None:
        with pytest.raises(ModelError, match=message) as caught:
            load_model(reference)
        assert "\n" not in str(caught.value)

    refuse(f"file:{tmp_path}/nett.py:net", "does not exist; near matches: net.py")
    refuse(f"file:{path}:nett", "'nett' does not exist in .*; near matches: net")
    refuse(f"file:{path}:CONSTANT", "'CONSTANT' is not callable")
    refuse(f"file:{path}:number", r"number\(\) returned a int: expected a torch.nn.Module")
    refuse(f"file:{path}:broken", r"broken\(\) fails in line 26: ValueError: no luck$")
    refuse(f"file:{path}:Settings", "returned a Settings")
    refuse(f"file:{path}:bare", r"does not say its input size: .*pretrained_cfg.*\?size=EDGE")
    refuse(f"file:{path}:bare?size=9", r"fails on one blank image of size \(3, 9, 9\)")
    refuse(f"file:{path}:net@{tmp_path}/net.safetensors", "weights file .* does not exist")
    torch.save({"1.weight": torch.ones(2, 192), "1.bias": torch.ones(3)}, tmp_path / "w.pt")
    refuse(f"file:{path}:net@{tmp_path}/w.pt", r"1\.bias: expected \(2,\), got \(3,\)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nimport no_such_package\n", "in line 2: ModuleNotFoundError: No module named 'no_such_package'"),
        ("x = 1\n\ndef f(:\n", "in line 3: SyntaxError"),
        ("import sys\nsys.exit(3)\n", "in line 2: SystemExit: 3"),
    ],
)
def test_a_file_that_does_not_import(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text(text)
    before = set(sys.modules)
    with pytest.raises(ModelError, match=f"importing .*bad.py' fails {message}"):
        load_model(f"file:{path}:f")
    assert not {name for name in set(sys.modules) - before if "bad" in name}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import sys; sys.exit(3)", r"made\(\) fails in line 3: SystemExit: 3$"),
        ("raise BaseException", r"made\(\) fails in line 3: BaseException$"),
        ("return None", r"made\(\) returned nothing: expected a torch.nn.Module"),
        ("return nn.Linear(10**9, 10**9)", r"made\(\) fails in line 3: RuntimeError: "),
        ("return made()", r"made\(\) fails in line 3: RecursionError: "),
        (
            "return nn.Sequential(nn.Flatten(), nn.Linear(192, 3, dtype=torch.complex64))",
            r"complex|cannot be put|fails",
        ),
    ],
)
def test_factories_that_give_no_module(body: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(f"import torch; from torch import nn\ndef made():\n    {body}\n")
    with pytest.raises(ModelError, match=message) as caught:
        load_model(f"file:{tmp_path}/net.py:made?size=8")
    assert "\n" not in str(caught.value)


def test_what_a_file_prints_is_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\nprint('imported')\n\ndef made():\n    print('called')\n"
        "    return Loud(nn.Flatten(), nn.Linear(192, 3))\n\nclass Loud(nn.Sequential):\n"
        "    def forward(self, x):\n        print('run')\n        return super().forward(x)\n"
    )
    model = load_model(f"file:{tmp_path}/net.py:made?size=8&mean=0.5&std=0.5")
    out, err = capsys.readouterr()
    assert out == "" and list(dict.fromkeys(err.splitlines())) == ["imported", "called", "run"]
    model.logits(torch.zeros(1, 3, 8, 8))
    assert capsys.readouterr() == ("", "run\n")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "net.py")
    with pytest.raises(ModelError, match=r"the file '.*net\.py' is a FIFO, not a regular file"):
        load_model(f"file:{tmp_path}/net.py:made?size=8")
