"""Classifiers of words: students and teachers with tokenizers of their own, measured on one word of each text."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import BertConfig, BertForTokenClassification

import gainfinder
from gainfinder.errors import DataError, ModelError, SettingsError
from killing import KillAtEpoch, Killed
from once import made_once
from texts import CLASSES, COMMON, LONGEST, WORDS, tiny_tokenizer
from transfers import asked_in_each_step, assert_taught_alike

NAMES = ("birds", "fish", "other", "trees")


@dataclass(frozen=True)
class WordZoo:
    """A model that knows nothing and one that knows words of three kinds, and tagged texts."""

    student: str
    teacher: str
    data: str
    val: str


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> WordZoo:
    folder = made_once(tmp_path_factory, "word-zoo", _make)
    return WordZoo(*(str(folder / name) for name in ("a", "b", "data.jsonl", "val.jsonl")))


def _make(folder: Path) -> None:
    _train(folder / "a", knows=NAMES, order=NAMES, steps=0, seed=0)
    _train(folder / "b", knows=("trees", "fish", "other"), order=("trees", "other", "fish", "birds"), steps=40, seed=1)
    for name, numbers in (("data", range(320)), ("val", range(1000, 1200))):
        rows = "".join(json.dumps(sentence(number)) + "\n" for number in numbers)
        (folder / f"{name}.jsonl").write_text(rows)


def sentence(number: int) -> dict[str, list[str]]:
    """Words with a class each: always the same for a number."""
    drawn = random.Random(number)
    kinds = [drawn.choice([*CLASSES, "other"]) for _ in range(drawn.randint(3, 8))]
    words = [drawn.choice(COMMON if kind == "other" else WORDS[kind]) for kind in kinds]
    return {"tokens": words, "ner_tags": kinds}


def _train(folder: Path, *, knows: tuple[str, ...], order: tuple[str, ...], steps: int, seed: int) -> None:
    tokenizer = tiny_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=LONGEST,
            pad_token_id=0,
            id2label=dict(enumerate(order)),
            label2id={name: index for index, name in enumerate(order)},
        )
        model = BertForTokenClassification(config).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
        for step in range(steps):
            rows = [sentence(10_000 + 32 * step + i) for i in range(32)]
            found = tokenizer(
                [row["tokens"] for row in rows], is_split_into_words=True, padding=True, return_tensors="pt"
            )
            labels = torch.full_like(found["input_ids"], -100)
            for at, row in enumerate(rows):
                for position, word in enumerate(found.word_ids(at)):
                    if word is not None and row["ner_tags"][word] in knows:
                        labels[at, position] = order.index(row["ner_tags"][word])
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(**found).logits.flatten(0, 1), labels.flatten()).backward()
            optimizer.step()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def transferred(zoo: WordZoo, out: Path, **settings: Any) -> gainfinder.TransferResult:
    about = {
        "val": zoo.val,
        "labels": "none",
        "guard": False,
        "epochs": 6,
        "batch_size": 16,
        "lr": 1e-2,
        "ema_decay": 0,
        **settings,
    }
    return gainfinder.transfer(f"hf:{zoo.student}", f"hf:{zoo.teacher}", zoo.data, out=out, **about)


@pytest.mark.parametrize("labels", ["none", "use"])
def test_what_one_knows_is_moved_into_the_other(labels: str, zoo: WordZoo, tmp_path: Path) -> None:
    metrics = transferred(zoo, tmp_path / "out", labels=labels).metrics
    assert metrics.accuracy_before is not None and metrics.accuracy_after is not None
    assert metrics.accuracy_after > metrics.accuracy_before + 0.05
    again = gainfinder.predict(f"hf:{tmp_path}/out/student", zoo.val)
    assert again.accuracy == metrics.accuracy_after


def test_predictions_are_those_of_transformers_at_the_measured_word(zoo: WordZoo) -> None:
    found = gainfinder.predict(f"hf:{zoo.teacher}", zoo.val)
    texts = gainfinder.load_samples(zoo.val)
    assert texts.measured_places is not None
    model = BertForTokenClassification.from_pretrained(zoo.teacher).eval()
    tokenizer = tiny_tokenizer()
    for at in range(20):
        tokens = tokenizer(list(texts.read(at)), is_split_into_words=True, return_tensors="pt")
        position = tokens.word_ids().index(int(texts.measured_places[at]))
        with torch.no_grad():
            logits = model(**tokens).logits[0, position]
        assert torch.allclose(found.logits[at], logits, atol=1e-4)


def test_the_report_says_what_is_measured(zoo: WordZoo, tmp_path: Path) -> None:
    transferred(zoo, tmp_path / "out", epochs=1, limit=40)
    page = gainfinder.write_report(tmp_path / "out").read_text(encoding="utf-8")
    assert "measured on 200 of" in page and "one word of each." in page
    card = ModelCard.load(tmp_path / "out" / "student" / "README.md")
    assert card.data.pipeline_tag == "token-classification"
    assert "AutoModelForTokenClassification.from_pretrained" in card.text
    assert gainfinder.push(tmp_path / "out", "me/words", dry_run=True).classified == "word"


def test_a_killed_run_goes_on_as_it_would_have(zoo: WordZoo, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        transferred(zoo, tmp_path / "killed", epochs=2, callbacks=[KillAtEpoch(2)])
    again, whole = (transferred(zoo, tmp_path / name, epochs=2) for name in ("killed", "whole"))
    assert again.metrics.resumed_epochs == 1
    for one, other in zip(*(run.student.module.state_dict().values() for run in (again, whole)), strict=True):
        assert torch.equal(one, other)


def test_the_bank_gives_what_the_models_would(zoo: WordZoo, tmp_path: Path) -> None:
    """Of texts that have fewer words than others in their batch, too."""
    live = transferred(zoo, tmp_path / "live", epochs=1, method="kl-dp-u")
    banked = transferred(
        zoo, tmp_path / "banked", epochs=1, method="kl-dp-u", bank=tmp_path / "bank", bank_storage="exact"
    )
    assert banked.metrics.bank is not None and banked.metrics.bank.entries == 2
    assert banked.metrics.teacher_share == pytest.approx(live.metrics.teacher_share, abs=1e-3)
    for one, other in zip(*(run.student.module.state_dict().values() for run in (live, banked)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_models_that_are_asked_once_teach_the_same(zoo: WordZoo, tmp_path: Path) -> None:
    """Of texts that have fewer words than others in their batch, too."""
    about: dict[str, Any] = {"epochs": 2, "method": "kl-dp-u"}
    kept = transferred(zoo, tmp_path / "kept", **about)
    with asked_in_each_step():
        asked = transferred(zoo, tmp_path / "asked", **about)
    assert_taught_alike(kept, asked)


def test_what_is_for_whole_texts_alone_is_refused(zoo: WordZoo, tmp_path: Path) -> None:
    for settings, message in (
        ({"method": "dist-dp-u"}, "compares the samples of a batch, and each word has a class"),
        ({"decide_on": "image", "method": "kl-dp-u"}, "each word of a text has a teacher of its own"),
    ):
        with pytest.raises(SettingsError, match=message):
            transferred(zoo, tmp_path / "out", **settings)
    with pytest.raises(ModelError, match="for which no head is fitted: expected a classifier of whole texts"):
        gainfinder.fit_head(f"hf:{zoo.student}", zoo.data, out=tmp_path / "out")
    (tmp_path / "texts.csv").write_text("text,label\na nest,birds\n")
    with pytest.raises(DataError, match=r"holds texts, and hf:\S+ classifies words"):
        gainfinder.predict(f"hf:{zoo.student}", tmp_path / "texts.csv")
    (tmp_path / "long.jsonl").write_text(
        "".join(json.dumps({"tokens": ["nest"] * 60, "id": i}) + "\n" for i in range(9))
    )
    with pytest.raises(DataError, match=r"row \d+: it is measured on word \d+, and hf:\S+ does not read that far"):
        gainfinder.predict(f"hf:{zoo.student}", tmp_path / "long.jsonl")
    assert not (tmp_path / "out").exists()
