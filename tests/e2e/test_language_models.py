"""Language models that share a tokenizer: each next token has a teacher, measured is one token of each text."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import gainfinder
from gainfinder.errors import DataError, ModelError, SettingsError
from gainfinder.runs import checks
from killing import KillAtEpoch, Killed
from once import made_once
from texts import LONGEST, made_up_text, text_file, tiny_text_model, tiny_tokenizer
from transfers import asked_in_each_step


@dataclass(frozen=True)
class LanguageZoo:
    """A language model that knows nothing, one that knows the texts, and texts."""

    student: str
    teacher: str
    data: str
    val: str


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> LanguageZoo:
    folder = made_once(tmp_path_factory, "language-zoo", _make)
    return LanguageZoo(*(str(folder / name) for name in ("a", "b", "data.csv", "val.csv")))


def _make(folder: Path) -> None:
    _train(folder / "a", steps=0, outputs=0, seed=0)
    _train(folder / "b", steps=60, outputs=5, seed=1)
    text_file(folder / "data.csv", 160, labels=False)
    text_file(folder / "val.csv", 200, first=1000)


def _train(folder: Path, *, steps: int, outputs: int, seed: int) -> None:
    """A GPT-2 of one layer with its tokenizer; `outputs` more than there are tokens, as many have."""
    tokenizer = tiny_tokenizer()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        small: dict[str, Any] = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": LONGEST}
        ends = {"bos_token_id": 2, "eos_token_id": 3}
        model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer) + outputs, **small, **ends)).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
        for step in range(steps):
            texts = [made_up_text(10_000 + 32 * step + number)[0] for number in range(32)]
            tokens = tokenizer(texts, padding=True, return_tensors="pt")
            labels = tokens["input_ids"].masked_fill(tokens["attention_mask"] == 0, -100)
            optimizer.zero_grad()
            model(**tokens, labels=labels).loss.backward()
            optimizer.step()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def transferred(zoo: LanguageZoo, out: Path, **settings: Any) -> gainfinder.TransferResult:
    about: dict[str, Any] = {
        "val": zoo.val,
        "method": "kl-dp-u",
        "guard": False,
        "epochs": 6,
        "batch_size": 16,
        "lr": 1e-2,
    }
    about |= {"ema_decay": 0, **settings}
    return gainfinder.transfer(f"hf:{zoo.student}", f"hf:{zoo.teacher}", zoo.data, out=out, **about)


@pytest.mark.parametrize("method", ["kl-dp-u", "kl-dp"])
def test_what_one_knows_is_moved_into_the_other(method: str, zoo: LanguageZoo, tmp_path: Path) -> None:
    metrics = transferred(zoo, tmp_path / "out", method=method).metrics
    assert metrics.accuracy_before is not None and metrics.accuracy_after is not None
    assert metrics.accuracy_after > metrics.accuracy_before + 0.1
    again = gainfinder.predict(f"hf:{tmp_path}/out/student", zoo.val)
    assert again.accuracy == metrics.accuracy_after


def test_predictions_are_those_of_transformers_before_the_measured_token(zoo: LanguageZoo) -> None:
    found = gainfinder.predict(f"hf:{zoo.teacher}", zoo.val)
    tokenizer = tiny_tokenizer()
    assert found.target is not None and found.num_classes == len(tokenizer)
    model = GPT2LMHeadModel.from_pretrained(zoo.teacher).eval()
    texts = gainfinder.load_samples(zoo.val)
    places = set()
    for at in range(20):
        ids = tokenizer(texts.read(at), return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :, : len(tokenizer)]
        (place,) = [p for p, row in enumerate(logits) if torch.allclose(row, found.logits[at], atol=1e-4)]
        assert ids[0, place + 1] == found.target[at]
        places.add(place)
    assert len(places) > 3


def test_without_labels_the_guard_does_not_look_at_the_tokens(zoo: LanguageZoo, tmp_path: Path) -> None:
    result = transferred(zoo, tmp_path / "out", labels="none", guard=True, epochs=2)
    assert result.metrics.guard is not None and result.metrics.guard.labelled is False


def test_a_killed_run_goes_on_as_it_would_have(zoo: LanguageZoo, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        transferred(zoo, tmp_path / "killed", epochs=2, callbacks=[KillAtEpoch(2)])
    again, whole = (transferred(zoo, tmp_path / name, epochs=2) for name in ("killed", "whole"))
    assert again.metrics.resumed_epochs == 1
    for one, other in zip(*(run.student.module.state_dict().values() for run in (again, whole)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("storage", ["exact", "top-100"])
@pytest.mark.parametrize("labels", ["none", "use"])
def test_the_bank_gives_what_the_models_would(storage: str, labels: str, zoo: LanguageZoo, tmp_path: Path) -> None:
    uneven = text_file(tmp_path / "uneven.csv", 60, labels=False, odd=("it was seen in the",) * 20)
    zoo = replace(zoo, data=str(uneven))  # of some texts there are more tokens than of others in their batch
    about: dict[str, Any] = {
        "epochs": 2,
        "labels": labels,
        "method": "kl-dp" if labels == "use" else "kl-dp-u",
    }
    with asked_in_each_step():
        live = transferred(zoo, tmp_path / "live", **about)
    kept = transferred(zoo, tmp_path / "kept", **about)
    assert kept.metrics.teacher_share == pytest.approx(live.metrics.teacher_share, abs=1e-3)
    for one, other in zip(*(run.student.module.state_dict().values() for run in (live, kept)), strict=True):
        assert torch.allclose(one, other, atol=1e-4)
    about |= {"bank": tmp_path / "bank", "bank_storage": storage, "bank_check": 20}
    banked = transferred(zoo, tmp_path / "banked", **about)
    assert banked.metrics.bank is not None and banked.metrics.bank.entries == 2
    assert banked.metrics.bank.largest_difference is not None and banked.metrics.bank.largest_difference < 1e-2
    assert banked.metrics.teacher_share == pytest.approx(live.metrics.teacher_share, abs=1e-3)
    for one, other in zip(*(run.student.module.state_dict().values() for run in (live, banked)), strict=True):
        assert torch.allclose(one, other, atol=5e-3)


def test_true_labels_alone_teach_it_too(zoo: LanguageZoo, tmp_path: Path) -> None:
    metrics = transferred(zoo, tmp_path / "out", method="xe").metrics
    assert metrics.transfer_delta_pp is not None and metrics.transfer_delta_pp > 10


def test_a_batch_that_memory_does_not_hold_is_refused(
    zoo: LanguageZoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "free_memory", lambda: 50_000)
    message = r"16 texts of up to 7 tokens with 83 classes each have logits of .*: give `micro_batch=2`"
    with pytest.raises(SettingsError, match=message):
        transferred(zoo, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_models_of_two_tokenizers_are_refused(zoo: LanguageZoo, tmp_path: Path) -> None:
    _train(tmp_path / "c", steps=0, outputs=0, seed=2)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["lake"])
    tokenizer.save_pretrained(tmp_path / "c")
    with pytest.raises(ModelError, match=r"its tokenizer knows \d+ tokens, the model"):
        gainfinder.load_model(f"hf:{tmp_path}/c")
    tiny_text_model(tmp_path / "d", steps=0)
    with pytest.raises(ModelError, match=r"classifies texts, and hf:\S+ tokens: both have to classify the same"):
        gainfinder.transfer(f"hf:{zoo.student}", f"hf:{tmp_path}/d", zoo.data, out=tmp_path / "out")
    with pytest.raises(DataError, match=r"digits holds images, and hf:\S+ classifies tokens"):
        gainfinder.predict(f"hf:{zoo.student}", "digits")
