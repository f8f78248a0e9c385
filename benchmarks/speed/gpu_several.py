"""Some steps of a transfer by several processes; started by `accelerate launch` in the section `several`.

Printed is a line of JSON: milliseconds a step, and by how much the processes' weights differ afterwards.
"""

import argparse
import json
import time

import torch

from benchmarks.speed import kinds
from gainfinder.runs import Callback, TargetModels, make_trainer, prepare_transfer
from gainfinder.training import train_steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("student", "teacher", "data", "val"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("batch-size", "limit", "steps"):
        parser.add_argument(f"--{name}", type=int, required=True)
    asked = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = kinds.gentle(
        batch_size=asked.batch_size, limit=asked.limit, augment="crop-flip", device=device, labels="none"
    )
    prepared = prepare_transfer(asked.student, [asked.teacher], asked.data, val=asked.val, settings=settings)
    prepared.views.load()
    trainer = make_trainer(prepared, TargetModels(prepared, Callback()).models)
    train_steps(trainer, prepared.views, 2, on_images=lambda _: None)  # warms up; waits for the device at its end
    began_s = time.perf_counter()
    train_steps(trainer, prepared.views, asked.steps, on_images=lambda _: None)
    step_ms = 1000 * (time.perf_counter() - began_s) / asked.steps
    accelerator = prepared.accelerator
    sums = torch.stack([value.double().sum() for value in trainer.weights().values()])
    gathered = accelerator.gather(sums[None])
    if prepared.is_main:
        differing = float((gathered - gathered[:1]).abs().max())
        print(json.dumps({"step_ms": step_ms, "weights_differ_by": differing, "processes": len(gathered)}), flush=True)


if __name__ == "__main__":
    main()
