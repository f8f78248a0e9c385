"""What a type checker finds in a user's file that calls `gainfinder.transfer`."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import gainfinder

SOURCE = Path(gainfinder.__file__).parents[1]
RIGHT = """
    from pathlib import Path

    import gainfinder
    from gainfinder import TransferConfig, TransferSpec

    config = TransferConfig(method="kl-dp-u", epochs=10, batch_size="auto", bank=Path("views"), track=["wandb"])
    gainfinder.transfer("a", ["b", "c"], "photos/", out="better", method="kl-dp-u", epochs=10, guard=False)
    gainfinder.transfer("a", "b", "photos/", config=config, lr=1, track="wandb", augment="none", subset=None)
    epochs: int | None = config.replace(epochs=3).epochs
    spec = TransferSpec(student="a", teachers=("b",), data="photos/", config=config)
    told: list[str] = spec.differences(TransferSpec.from_json(spec.to_json()))
    kept: dict[TransferSpec, str] = {spec: spec.digest()}
"""
WRONG = """
    import gainfinder

    gainfinder.transfer("a", "b", "photos/", methd="kl")
    gainfinder.transfer("a", "b", "photos/", epochs="five")
    gainfinder.transfer("a", "b", "photos/", guard=3.5)
    gainfinder.transfer("a", "b", "photos/", strategy="suop")
    gainfinder.transfer("a", "b", "photos/", config={"epochs": 3})
    gainfinder.TransferConfig(methd="kl")
    gainfinder.TransferConfig(epochs="five")
    gainfinder.TransferConfig(guard=3.5)
    gainfinder.TransferConfig(preset="papre")
    gainfinder.TransferConfig().replace(epoch=3)
    gainfinder.TransferConfig().seed = 3
    gainfinder.TransferSpec(student="a", teachers="b", data="photos/")
"""


def mistakes(code: str, folder: Path) -> list[tuple[str, str]]:
    """What `mypy --strict` finds in a user's file: the line and the kind of each mistake."""
    text = textwrap.dedent(code)
    (folder / "user.py").write_text(text)
    # the types of these packages are not what is tested, and take long to read
    (folder / "mypy.ini").write_text(
        f"[mypy]\nmypy_path = {SOURCE}\n[mypy-torch.*,torchvision.*,timm.*,numpy.*,accelerate.*]\n"
        "follow_imports = skip\n[mypy-gainfinder.*]\nignore_errors = True\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "user.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert "user.py" in done.stdout or "Success" in done.stdout, done.stdout + done.stderr
    found = re.findall(r"^user\.py:(\d+): error: .*\[([a-z-]+)\]$", done.stdout, flags=re.M)
    return [(text.splitlines()[int(line) - 1], kind) for line, kind in found]


def test_right_use_is_accepted_and_each_mistake_found(tmp_path: Path) -> None:
    assert mistakes(RIGHT, tmp_path) == []
    wrong = [line for line in textwrap.dedent(WRONG).splitlines() if line.startswith("gainfinder")]
    found = mistakes(WRONG, tmp_path)
    assert [line for line, _ in found] == wrong
    assert [kind for _, kind in found] == [
        "call-arg", "arg-type", "arg-type", "arg-type", "arg-type",
        "call-arg", "arg-type", "arg-type", "arg-type", "call-arg", "misc", "arg-type",
    ]  # fmt: skip
