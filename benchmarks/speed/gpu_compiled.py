"""Section `compiled`: what torch.compile spares a step and a frozen model's answer, and how long it takes before.

Each case runs in a process of its own: once compiling a ResNet-50's step had not ended after three minutes, and nothing
in that process could end it.

    python -m benchmarks.speed.gpu_compiled frozen resnet50         # prints a row of JSON a measure
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from benchmarks.speed.bench import FULL, Bench
from benchmarks.speed.gpu_outside import run
from benchmarks.speed.gpu_steps import bare_step
from benchmarks.speed.sections import Sheet
from gainfinder import load_model

FROZEN, STEP = "frozen", "step"
LEAST_S = 12.0
"""With less time left a case is not begun."""


def measure_compiled(sheet: Sheet, bench: Bench) -> None:
    """A frozen model's forward pass and a bare training step, as they are and compiled; the time is shared out."""
    cases = [(what, model) for what in (FROZEN, STEP) for model in bench.scale.models]
    for number, (what, model) in enumerate(cases):
        seconds = sheet.left_s() / (len(cases) - number)
        about = {"model": model.name, "setting": what}
        if seconds < LEAST_S:
            sheet.add("batch_ms", "not tried", **about, note=f"only {seconds:.0f} s left")
            continue
        sizes = ["--batch-size", str(bench.scale.batch_size), "--classes", str(bench.scale.classes)]
        command = ["-m", "benchmarks.speed.gpu_compiled", what, model.name, *sizes, "--device", bench.device.type]
        code, text = run(command, seconds=seconds)
        for line in text.splitlines():
            if line.startswith("{"):
                row = json.loads(line)
                sheet.add(row["measure"], row["value"], **about, kind=row["kind"])
        if code != 0:
            said = f"stopped after {seconds:.0f} s" if code is None else f"ended with {code}: {text[-200:]}"
            sheet.add("batch_ms", "not done", **about, note=said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=(FROZEN, STEP))
    parser.add_argument("model")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    bench = Bench(work=Path(), out=Path(), scale=FULL, device=torch.device(given.device))
    torch.manual_seed(0)
    classifier = load_model(timm.create_model(given.model, num_classes=given.classes))
    module = classifier.to(bench.device)
    x = torch.randn(given.batch_size, *classifier.image_preprocessing.input_size, device=bench.device)
    y = torch.randint(0, given.classes, (given.batch_size,), device=bench.device)
    make = _asked if given.what == FROZEN else _stepped
    calls = 20 if bench.device.type == "cuda" else 2
    for kind, called in (("as it is", module), ("compiled", torch.compile(module))):
        call = make(bench, module, called, x, y)
        _print(kind, "first_ms", bench.call_ms(call, calls=1))
        bench.call_ms(call, calls=2)  # a second call may compile once more
        _print(kind, "batch_ms", bench.call_ms(call, calls=calls))


def _asked(
    bench: Bench, module: nn.Module, called: Callable[[Tensor], Tensor], x: Tensor, _: Tensor
) -> Callable[[], Tensor]:
    module.eval()

    def answer() -> Tensor:
        with torch.inference_mode(), bench.autocast():
            return called(x)

    return answer


def _stepped(
    bench: Bench, module: nn.Module, called: Callable[[Tensor], Tensor], x: Tensor, y: Tensor
) -> Callable[[], Tensor]:
    return bare_step(bench, module.train(), called, x, y, momentum=0.9)


def _print(kind: str, measure: str, value: float) -> None:
    print(json.dumps({"kind": kind, "measure": measure, "value": value}), flush=True)


if __name__ == "__main__":
    main()
