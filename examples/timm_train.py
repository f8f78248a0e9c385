"""A training script of timm's parts, in which a student learns from teachers and from itself.

    python examples/timm_train.py --data-dir photos --model resnet18.a1_in1k --teachers vit_tiny_patch16_224

Three lines are gainfinder's: one is the import, and the others are marked. All else is timm's, in the order of timm's
own train script: model, loaders, task, optimiser, checkpoints, schedule, epochs.

The folder of data has `train` and `validation`, in them a folder for each class; labels are the folders' positions in
their sorted order, as always with timm, and have to be the model's classes.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import resume_task_checkpoint
from timm.utils import AverageMeter, CheckpointSaver

from gainfinder import TransferTask


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure and save after each epoch; with `--resume auto` go on from the last one that was saved."""
    args = parsed(arguments)
    device = torch.device(args.device)
    torch.manual_seed(args.seed)
    model = timm.create_model(args.model, pretrained=True).to(device)
    config = resolve_data_config({}, model=model)
    train_loader = make_loader(args, "train", config, device)
    eval_loader = make_loader(args, "validation", config, device)

    task = TransferTask(model, args.teachers, args.method, device=device)  # gainfinder's

    optimizer = create_optimizer_v2(task.get_trainable_module(), opt=args.opt, lr=args.lr, weight_decay=args.decay)
    scheduler, epochs = create_scheduler_v2(optimizer, "cosine", num_epochs=args.epochs)
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    saver = CheckpointSaver(model, optimizer, task=task, checkpoint_dir=str(folder), max_history=1)
    start, last = 0, folder / "last.pth.tar"
    if args.resume == "auto" and last.exists():
        start = resume_task_checkpoint(task, str(last), optimizer) or 0
        saver.load_state_dict_from_checkpoint(str(last))
    scheduler.step(start)
    for epoch in range(start, epochs):
        told = train_one_epoch(task, train_loader, optimizer, args)
        scheduler.step(epoch + 1)
        top1 = evaluate(task, eval_loader)
        saver.save_checkpoint(epoch, metric=top1)
        print(f"epoch {epoch}: loss {told['loss']:.4f}, teacher share {told['teacher_share']:.2%}, top-1 {top1:.2f}")


def train_one_epoch(
    task: TransferTask, loader: Any, optimizer: torch.optim.Optimizer, args: argparse.Namespace
) -> dict[str, float]:
    """One epoch, with a step of the optimiser after each `--grad-accum-steps` batches; means of what the task tells."""
    task.train()
    meters = {"loss": AverageMeter(), "teacher_share": AverageMeter()}
    for number, (images, target) in enumerate(loader, start=1):
        needs_update = number % args.grad_accum_steps == 0 or number == len(loader)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=args.amp):
            result = task(images, target)  # gainfinder's
        (result["loss"] / args.grad_accum_steps).backward()
        if needs_update:
            optimizer.step()
            optimizer.zero_grad()
        for name, meter in meters.items():
            meter.update(result[name].item() if name in result else float("nan"), len(images))
    return {name: float(meter.avg) for name, meter in meters.items()}


@torch.no_grad()
def evaluate(task: TransferTask, loader: Any) -> float:
    """The student's top-1 accuracy in per cent."""
    task.eval()
    evaluator = task.create_evaluator()
    for images, target in loader:
        evaluator.update(task.get_eval_model()(images), target)
    return float(evaluator.compute()["top1"])


def make_loader(args: argparse.Namespace, split: str, config: dict[str, Any], device: torch.device) -> Any:
    """timm's loader: for training augmented and shuffled, else as the model is evaluated."""
    training = split == "train"
    return create_loader(
        create_dataset("", root=args.data_dir, split=split, is_training=training),
        input_size=config["input_size"],
        mean=config["mean"],
        std=config["std"],
        interpolation=config["interpolation"],
        crop_pct=config["crop_pct"],
        batch_size=args.batch_size,
        is_training=training,
        num_workers=args.workers,
        persistent_workers=False,
        device=device,
    )


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; names and defaults as timm's where it has them."""
    parser = argparse.ArgumentParser(
        description="Train by timm's parts on what teachers know and the student does not."
    )
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--teachers", nargs="+", required=True)
    parser.add_argument("--method", default="kl-dp")
    parser.add_argument("--output", default="output/train")
    parser.add_argument("--resume", choices=("", "auto"), default="")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--grad-accum-steps", type=int, default=1)
    parser.add_argument("--opt", default="momentum")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", dest="decay", type=float, default=1e-3)
    parser.add_argument("--amp", action="store_true")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=42)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
