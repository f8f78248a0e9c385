"""Two classifiers of texts that know different classes teach each other, without labels and with.

    python -m benchmarks.texts.docstrings --work WORK --out benchmarks/texts/docstrings.csv   # --device cuda
    python -m benchmarks.texts.docstrings table benchmarks/texts/docstrings.csv

The texts are docstrings of six Python packages, as they are installed beside this one, with the package's name taken
out; the class is the package. Of each 1,200 texts at most: a fifth to measure on, three tenths to learn from without
labels, a quarter to train each model on. `bert` has a WordPiece tokenizer and `roberta` a byte-level BPE of its own;
each is trained from scratch on the texts of three packages and a third of those of the others. Then each learns from
the other, everything by default but for `--epochs 30`: without labels, and with those of what it learns from. One
thread. With `--students`, `--labels` and `--seeds` some of the transfers, for several processes beside each other.
"""

import argparse
import ast
import csv
import itertools
import random
import re
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

import gainfinder
from benchmarks.lab.rows import append, done, key_of

PACKAGES = ("numpy", "pandas", "scipy", "sklearn", "torch", "transformers")
MOST = 1200
"""Texts of a package."""
PARTS = {"test": 4, "transfer": 6, "bert": 5, "roberta": 5}
"""Twentieths of the texts."""
FEW = 3
"""Of the packages that a model is no specialist of it sees one text in so many."""
SPECIALTIES = {"bert": PACKAGES[:3], "roberta": PACKAGES[3:]}
EPOCHS = 10
LABELS = ("none", "use")
KEY = ("student", "teacher", "labels", "seed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", nargs="*", help="`table FILE` prints what a file holds")
    parser.add_argument("--work", type=Path, help="folder for texts, models and results")
    parser.add_argument("--out", type=Path, help="file of rows")
    parser.add_argument("--students", nargs="+", choices=SPECIALTIES, default=list(SPECIALTIES))
    parser.add_argument("--labels", nargs="+", choices=LABELS, default=list(LABELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    given = parser.parse_args()
    if given.table:
        print(_table(Path(given.table[-1])))
        return
    torch.set_num_threads(1)
    prepare(given.work)
    for seed, labels, student in itertools.product(given.seeds, given.labels, given.students):
        teacher = next(name for name in SPECIALTIES if name != student)
        key: dict[str, Any] = {"student": student, "teacher": teacher, "labels": labels, "seed": seed}
        if key_of(key, KEY) not in done(given.out, KEY):
            append(given.out, {**key, **transferred(given.work, **key, device=given.device)})


def prepare(work: Path) -> None:
    """Texts and models, unless they are there."""
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "roberta" / "config.json").exists():
        write_texts(work)
        for name in SPECIALTIES:
            train(work, name)


def transferred(
    work: Path, *, student: str, teacher: str, labels: Literal["none", "use"], seed: int, device: Literal["cpu", "cuda"]
) -> dict[str, Any]:
    """The measures of a transfer."""
    metrics = gainfinder.transfer(
        f"hf:{work / student}",
        f"hf:{work / teacher}",
        work / "transfer.csv",
        val=work / "test.csv",
        labels=labels,
        epochs=30,
        seed=seed,
        bank=work / "bank",
        device=device,
        out=work / f"{student}-{teacher}-{labels}-{seed}",
    ).metrics
    low, high = metrics.transfer_delta_ci_pp or (float("nan"), float("nan"))
    return {
        "before": metrics.accuracy_before,
        "teacher_accuracy": gainfinder.predict(f"hf:{work / teacher}", work / "test.csv").accuracy,
        "after": metrics.accuracy_after,
        "delta_pp": metrics.transfer_delta_pp,
        "low_pp": low,
        "high_pp": high,
        "gained": metrics.knowledge_gain,
        "lost": metrics.knowledge_loss,
        "alpha": None if metrics.guard is None else metrics.guard.alpha,
        "unguarded_pp": None if metrics.guard is None else metrics.guard.unguarded_delta_pp,
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "torch": torch.__version__,
    }


def write_texts(work: Path) -> None:
    """The parts of the texts, each a CSV file with the columns `text` and `label`."""
    found = {package: list(docstrings(package)) for package in PACKAGES}
    rows = [(text, package) for package, texts in found.items() for text in texts[:MOST]]
    random.Random(1).shuffle(rows)
    start = 0
    for part, share in PARTS.items():
        stop = start + len(rows) * share // sum(PARTS.values())
        with (work / f"{part}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *rows[start:stop]])
        start = stop


def docstrings(package: str) -> Iterator[str]:
    """The beginnings of a package's docstrings, each once, in a fixed order drawn at random, without its name."""
    folder = Path(sysconfig.get_paths()["purelib"]) / package
    seen = set()
    for file in sorted(folder.rglob("*.py")):
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            text = ast.get_docstring(node) if isinstance(node, ast.FunctionDef | ast.ClassDef) else None
            if text and len(text) > 80:
                seen.add(re.sub(package, "it", re.sub(r"\s+", " ", text)[:300], flags=re.IGNORECASE))
    texts = sorted(seen)
    random.Random(0).shuffle(texts)
    yield from texts


def train(work: Path, name: str) -> None:
    """Train a specialist from scratch, and save it with its tokenizer."""
    texts, labels = read(work / f"{name}.csv")
    chosen = [i for i, label in enumerate(labels) if label in SPECIALTIES[name] or i % FEW == 0]
    texts, labels = [texts[i] for i in chosen], [labels[i] for i in chosen]
    torch.manual_seed(0)
    tokenizer, model = (bert if name == "bert" else roberta)(texts)
    tokens = tokenizer(texts, truncation=True, max_length=96, padding=True, return_tensors="pt")
    labels_N = torch.tensor([PACKAGES.index(label) for label in labels])
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    steps = EPOCHS * -(-len(texts) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    model.train()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(texts)).split(32):
            longest = int(tokens["attention_mask"][rows].sum(dim=1).max())
            logits = model(**{key: value[rows, :longest] for key, value in tokens.items()}).logits
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, labels_N[rows]).backward()
            optimizer.step()
            schedule.step()
    model.eval().save_pretrained(work / name)
    tokenizer.save_pretrained(work / name)


def bert(texts: Sequence[str]) -> tuple[Any, Any]:
    """A tokenizer of WordPiece and a BERT of two layers."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=3000, special_tokens=special, show_progress=False)
    made.train_from_iterator(texts, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=96, **names)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=96, intermediate_size=192, **_shape())
    return tokenizer, BertForSequenceClassification(config)


def roberta(texts: Sequence[str]) -> tuple[Any, Any]:
    """A tokenizer of byte-level pairs and a RoBERTa of two layers."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=4000, special_tokens=special, show_progress=False, initial_alphabet=alphabet
    )
    made.train_from_iterator(texts, trainer)
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
    inputs = ["input_ids", "attention_mask"]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=96, model_input_names=inputs, **names)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=96, intermediate_size=256, type_vocab_size=1, pad_token_id=1, **_shape()
    )
    return tokenizer, RobertaForSequenceClassification(config)


def read(path: Path) -> tuple[list[str], list[str]]:
    """Texts and labels of a file."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [row["label"] for row in rows]


def _shape() -> dict[str, Any]:
    names = dict(enumerate(PACKAGES))
    by_name = {name: index for index, name in names.items()}
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 100}
    return {**shape, "id2label": names, "label2id": by_name}


def _table(path: Path) -> str:
    """The rows of a file as a table in Markdown."""
    head = (
        "student ← teacher",
        "labels",
        "seed",
        "before",
        "teacher",
        "trained student",
        "kept: α",
        "Δ (95 % interval)",
    )
    lines = [head, ("---",) * len(head)]
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            before, taught = (f"{float(row[name]):.1%}" for name in ("before", "teacher_accuracy"))
            trained = f"{float(row['unguarded_pp']):+.1f} pp"
            low, high = float(row["low_pp"]), float(row["high_pp"])
            delta = f"{float(row['delta_pp']):+.1f} pp ({low:+.1f} to {high:+.1f})"
            names = (f"{row['student']} ← {row['teacher']}", row["labels"], row["seed"])
            lines.append((*names, before, taught, trained, row["alpha"], delta))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    main()
