"""Section `disk`: how many images a second come from JPEG files, for themselves and beside a step that learns."""

import itertools
import os
import time
from collections.abc import Callable

from benchmarks.speed import kinds
from benchmarks.speed.bench import Bench
from benchmarks.speed.sections import Sheet
from gainfinder.runs import PreparedTransfer
from gainfinder.training import epoch_batches
from gainfinder.views import ViewBatch, ViewSource


def measure_disk(sheet: Sheet, bench: Bench) -> None:
    """Images a second by the number of decoding processes; nothing is kept in memory, so each view is decoded."""
    model = bench.scale.models[0]
    began_s = time.perf_counter()
    folder = bench.images(bench.scale.files)
    files = bench.scale.classes * bench.scale.files.per_class
    sheet.add("make_s", time.perf_counter() - began_s, note=f"{files} files in {folder}")
    began_s = time.perf_counter()
    tuning = bench.fine_tuning(model, augment="rrc", on=bench.scale.files)
    sheet.add("prepare_s", time.perf_counter() - began_s, note=f"{len(tuning.train_images)} images, model loaded")
    step = kinds.of_trainer(tuning)
    ready = itertools.cycle([next(iter(_source(tuning, workers=1).batches(_wanted(tuning, 1), epoch=0)))])
    step_ms = min(bench.step_ms(step, ready, steps=2 * bench.scale.steps) for _ in range(2))
    size = bench.scale.batch_size
    sheet.add("images_per_s", 1000 * size / step_ms, model=model.name, kind="step on ready views")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for workers in bench.scale.workers:
        if workers > max(1, cores - 1):
            continue
        for kind, work in (("views alone", kinds.views_alone), ("step", step)):
            if sheet.left_s() < 0:
                sheet.add("images_per_s", "no time", kind=kind, setting=f"{workers} workers")
                continue
            rate, first_s = _images_per_s(bench, tuning, work, workers=workers)
            about = {"model": model.name, "setting": f"{workers} workers", "kind": kind}
            sheet.add("images_per_s", rate, **about)
            sheet.add("first_batch_s", first_s, **about, note="processes are started for each epoch")
            if kind == "step":
                sheet.add("of_ready", rate * step_ms / 1000 / size, **about, note="1: the disk keeps up")


def _source(of: PreparedTransfer, *, workers: int) -> ViewSource:
    return ViewSource(of.train_images, of.view_spec, workers=workers, device=of.accelerator.device, resident_bytes=0)


def _wanted(of: PreparedTransfer, count: int) -> list[list[int]]:
    batches = epoch_batches(of.train_images.ids, of.settings.batch_size, seed=0, epoch=0)
    return [batch.tolist() for batch in (batches * count)[:count]]


def _images_per_s(
    bench: Bench, of: PreparedTransfer, work: Callable[[ViewBatch], object], *, workers: int
) -> tuple[float, float]:
    """Images a second once the processes run, and the seconds until the first batch.

    Each process makes whole batches, which come as many at a time as there are processes.

    Hence timed from the end of one such burst to the end of another. A process works ahead of what is taken from it:
    the first batches that are timed were made, or begun, before. With as many turns as a process makes ahead, and
    one more, most of it is work that is timed.
    """
    count = workers * (1 + bench.scale.turns)
    began_s = time.perf_counter()
    batches = _source(of, workers=workers).batches(_wanted(of, count), epoch=0)
    work(next(batches))
    bench.wait()
    first_s = time.perf_counter() - began_s
    for batch in itertools.islice(batches, workers - 1):
        work(batch)
    bench.wait()
    began_s = time.perf_counter()
    images = 0
    for batch in batches:
        work(batch)
        images += len(batch.positions_N)
    bench.wait()
    return images / (time.perf_counter() - began_s), first_s
