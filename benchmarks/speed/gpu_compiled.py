"""Section `compiled`: what torch.compile spares a step and a frozen model's answer, and how long it takes before.

Each case runs in a process of its own: once compiling a ResNet-50's step had not ended after three minutes, and nothing
in that process could end it.

    python -m benchmarks.speed.gpu_compiled frozen resnet50         # prints a row of JSON a measure
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.speed.bench import Bench
from benchmarks.speed.gpu_outside import run
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
    device = torch.device(given.device)
    torch.manual_seed(0)
    classifier = load_model(timm.create_model(given.model, num_classes=given.classes))
    module = classifier.to(device)
    size = classifier.image_preprocessing.input_size
    x = torch.randn(given.batch_size, *size, device=device)
    y = torch.randint(0, given.classes, (given.batch_size,), device=device)
    make = _asked if given.what == FROZEN else _stepped
    plain = make(module, module, x, y)
    _print("as it is", "batch_ms", _ms(plain, device))
    compiled = make(module, torch.compile(module), x, y)
    began_s = time.perf_counter()
    compiled()
    _wait(device)
    _print("compiled", "first_s", time.perf_counter() - began_s)
    _print("compiled", "batch_ms", _ms(compiled, device))


def _asked(module: nn.Module, called: Callable[[Tensor], Tensor], x: Tensor, _: Tensor) -> Callable[[], Tensor]:
    module.eval()

    def answer() -> Tensor:
        with torch.inference_mode(), torch.autocast(x.device.type, dtype=torch.bfloat16):
            return called(x)

    return answer


def _stepped(module: nn.Module, called: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Callable[[], Tensor]:
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9, fused=True)

    def step() -> Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            loss = F.cross_entropy(called(x).float(), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def _ms(call: Callable[[], Any], device: torch.device) -> float:
    """Milliseconds a call of several that are waited for together, after two that do not count."""
    calls = 20 if device.type == "cuda" else 2
    for _ in range(2):
        call()
    _wait(device)
    began_s = time.perf_counter()
    for _ in range(calls):
        call()
    _wait(device)
    return 1000 * (time.perf_counter() - began_s) / calls


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _print(kind: str, measure: str, value: float) -> None:
    print(json.dumps({"kind": kind, "measure": measure, "value": value}), flush=True)


if __name__ == "__main__":
    main()
