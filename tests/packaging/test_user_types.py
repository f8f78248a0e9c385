"""What a type checker finds in a user's file, where gainfinder is installed from its wheel."""

import re
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

USED = """
    import gainfinder
    from gainfinder import load_images, load_model, predict, scan, transfer

    student = load_model("local-dir:student")
    accuracy: float = predict(student, "photos/", device="cpu").accuracy
    gained: float | None = scan([student, "resnet18.a1_in1k"], load_images("photos/")).pairs[0].positive_flips
    done = transfer(student, ["resnet18.a1_in1k", "table:photos.parquet"], "photos/", out="better", epochs=1)
    delta: float | None = done.metrics.transfer_delta_pp
    done.student.module.eval()
    error: type[Exception] = gainfinder.GainfinderError
    names: tuple[str, ...] = (gainfinder.flips.__name__, gainfinder.partition.__name__, gainfinder.objectives.__name__)
"""
MISUSED = """
    import gainfinder

    gainfinder.transfr("a", "b", "digits")
    gainfinder.transfer("a", "b")
    count: int = gainfinder.scan(["a", "b"], "digits").pairs[0].positive_flips
"""
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


def mistakes(codes: Sequence[str], folder: Path, environment: Path) -> list[list[tuple[str, str]]]:
    """What `mypy --strict` finds in each of a user's files: the line and the kind of each mistake."""
    texts = [textwrap.dedent(code) for code in codes]
    names = [f"user{number}.py" for number in range(len(codes))]
    for name, text in zip(names, texts, strict=True):
        (folder / name).write_text(text)
    # of other packages only pydantic's types are read, by which the settings are declared: all take far longer
    (folder / "mypy.ini").write_text(
        "[mypy]\nfollow_imports = skip\n[mypy-gainfinder.*,pydantic.*]\nfollow_imports = normal\n"
    )
    interpreter = ["--python-executable", str(environment / "bin" / "python")]
    command = [sys.executable, "-m", "mypy", "--strict", *interpreter, *names]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert f"checked {len(codes)} source files" in done.stdout, done.stdout + done.stderr
    found = {
        name: re.findall(rf"^{re.escape(name)}:(\d+): error: .*\[([a-z-]+)\]$", done.stdout, flags=re.M)
        for name in names
    }
    return [
        [(text.splitlines()[int(line) - 1], kind) for line, kind in found[name]]
        for name, text in zip(names, texts, strict=True)
    ]


def test_right_use_is_accepted_and_each_mistake_found(environment: Path, tmp_path: Path) -> None:
    """One test: the checker reads the whole package first."""
    used, right, misused, wrong = mistakes((USED, RIGHT, MISUSED, WRONG), tmp_path, environment)
    assert (used, right) == ([], [])
    assert [kind for _, kind in misused] == ["attr-defined", "call-arg", "assignment"]
    assert [line for line, _ in wrong] == [
        line for line in textwrap.dedent(WRONG).splitlines() if line.startswith("gainfinder")
    ]
    assert [kind for _, kind in wrong] == [
        "call-arg", "arg-type", "arg-type", "arg-type", "arg-type",
        "call-arg", "arg-type", "arg-type", "arg-type", "call-arg", "misc", "arg-type",
    ]  # fmt: skip
