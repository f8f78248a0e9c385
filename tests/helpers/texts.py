"""Made-up texts in three classes, and tiny classifiers of them with tokenizers of their own."""

import csv
import random
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

CLASSES = ("birds", "fish", "trees")
WORDS = {
    "birds": ("beak", "egg", "feather", "nest", "song", "wing"),
    "fish": ("fin", "gill", "pond", "reef", "scale", "shoal"),
    "trees": ("bark", "cone", "leaf", "root", "trunk", "twig"),
}
"""Words of each class; a text has some of them among those of `COMMON`."""
COMMON = ("a", "the", "of", "and", "in", "it", "was", "seen", "small", "old")
ODD = (
    "<script>document.title = 'ran'</script>",
    "\u05e9\u05dc\u05d5\u05dd \u202e",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467",
    "two\nlines",
    "{{ 7 * 7 }} &amp; images",
)
"""What texts may begin with: markup, letters from right to left, an emoji of several characters, lines, templates."""
LONGEST = 24
"""Positions that the models have."""


def made_up_text(number: int, *, classes: Sequence[str] = CLASSES) -> tuple[str, str]:
    """A text and its class: always the same for a number."""
    drawn = random.Random(number)
    label = classes[number % len(classes)]
    words = [*drawn.choices(WORDS[label], k=2), *drawn.choices(COMMON, k=4)]
    drawn.shuffle(words)
    return " ".join(words), label


def text_file(
    path: Path, count: int = 60, *, first: int = 0, labels: bool = True, pairs: bool = False, odd: Sequence[str] = ()
) -> Path:
    """A CSV file of texts.

    Args:
        path: the file.
        count: number of texts.
        first: number of the first, so that files can hold different ones.
        labels: whether there is a column `label`.
        pairs: whether each text is two, in the columns `first` and `second`: name them by ?text=first,second.
        odd: texts that the first ones are preceded by, such as one with markup in it.
    """
    columns = ["first", "second"] if pairs else ["text"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, *(["label"] if labels else [])])
        for number in range(count):
            text, label = made_up_text(first + number)
            text = f"{odd[number]} {text}" if number < len(odd) else text
            parts = [text, made_up_text(first + number + 1000)[0]] if pairs else [text]
            writer.writerow([*parts, *([label] if labels else [])])
    return path


def tiny_text_model(
    folder: Path, *, knows: Collection[str] = CLASSES, classes: Sequence[str] = CLASSES, steps: int = 50, seed: int = 0
) -> str:
    """The reference of a BERT of one layer, trained in a fraction of a second, saved with its tokenizer.

    Args:
        folder: the folder to save it in.
        knows: classes whose texts it learns from; of the others it has seen one text in ten.
        classes: its class names, in the order of its outputs.
        steps: steps of training; 0 leaves it untrained.
        seed: seed of its weights.
    """
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = tiny_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LONGEST,
        num_labels=len(classes),
        id2label=dict(enumerate(classes)),
        label2id={name: index for index, name in enumerate(classes)},
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertForSequenceClassification(config)
        _fit(model, tokenizer, knows=knows, classes=classes, steps=steps)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return f"hf:{folder}"


def tiny_tokenizer() -> "PreTrainedTokenizerFast":  # type: ignore[name-defined]  # noqa: F821
    """A tokenizer of whole words, those above and the letters."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    letters = [sign + letter for letter in "abcdefghijklmnopqrstuvwxyz" for sign in ("", "##")]
    words = [*COMMON, *(word for own in WORDS.values() for word in own)]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys([*special, *letters, *words]))}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=LONGEST,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def _fit(model: nn.Module, tokenizer: object, *, knows: Collection[str], classes: Sequence[str], steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    found = [made_up_text(100_000 + number) for number in range(32 * max(steps, 1))]
    kept = [(text, label) for n, (text, label) in enumerate(found) if label in knows or n // len(CLASSES) % 10 == 0]
    labels_N = torch.tensor([classes.index(label) for _, label in kept])
    inputs: dict[str, Tensor] = tokenizer([text for text, _ in kept], padding=True, return_tensors="pt")  # type: ignore[operator]
    model.train()
    for step in range(steps):
        batch = torch.arange(32 * step, 32 * (step + 1)) % len(kept)
        logits = model(**{name: rows[batch] for name, rows in inputs.items()}).logits
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, labels_N[batch]).backward()
        optimizer.step()
    model.eval()
