"""Texts to tokens, and classifiers of texts of transformers."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import gainfinder
from gainfinder.errors import BadReference, ModelError
from gainfinder.models import Tokenization, load_copy, load_model, new_head
from once import made_once
from texts import CLASSES, tiny_text_model, tiny_tokenizer

TEXTS = ["the old nest", "a fin and a gill of the old pond", "bark"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model of texts."""
    return made_once(tmp_path_factory, "text-model", _make)


def _make(folder: Path) -> None:
    tiny_text_model(folder)


def tokenization(model: gainfinder.Classifier) -> Tokenization:
    assert isinstance(model.preprocessing, Tokenization)
    return model.preprocessing


def test_logits_are_those_of_transformers(folder: Path) -> None:
    model = load_model(f"hf:{folder}")
    assert (model.reads, model.num_classes, model.class_names) == ("text", 3, CLASSES)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    own = tokenization(model)
    batch = own.collated(torch.stack([own.encoded(text) for text in TEXTS]))
    assert batch.shape == (3, 3, tokens["input_ids"].shape[1])  # what pads all of them is cut off
    for row, name in enumerate(own.rows):
        assert batch[:, row].tolist() == tokens[name].tolist()
    with torch.no_grad():
        assert torch.equal(model.logits(batch), theirs(**tokens).logits)


def test_pairs_and_long_texts(folder: Path) -> None:
    model = load_model(f"hf:{folder}?max_length=8")
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    own = tokenization(model)
    pair = ("the old nest of it", "a fin and a gill of it")
    expected = tokens(*pair, truncation="longest_first", max_length=8)
    assert own.encoded(pair)[own.rows.index("token_type_ids")].tolist() == expected["token_type_ids"]
    assert own.encoded(pair)[0].tolist() == expected["input_ids"]
    assert own.encoded("nest " * 30).shape == (3, 8)
    with pytest.raises(BadReference, match=r"max_length=25 .* the model takes 24 tokens at most"):
        load_model(f"hf:{folder}?max_length=25")
    with pytest.raises(BadReference, match=r"max_length=0 .* expected a number of tokens from 1"):
        load_model(f"hf:{folder}?max_length=0")
    with pytest.raises(BadReference, match="unknown setting 'mean'"):
        load_model(f"hf:{folder}?mean=0.5")


def test_equal_where_the_same_texts_become_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    one, other = (tokenization(load_model(f"hf:{folder}")) for _ in range(2))
    one.encoded("the nest")  # which keeps its truncation and padding in the tokenizer
    assert one == other == pickle.loads(pickle.dumps(one)) and hash(one) == hash(other)
    assert replace(one, max_length=9) != one
    shutil.copytree(folder, tmp_path / "copy")
    changed = json.loads((folder / "tokenizer.json").read_text())
    changed["model"]["vocab"]["nest"], changed["model"]["vocab"]["reef"] = (
        changed["model"]["vocab"]["reef"],
        changed["model"]["vocab"]["nest"],
    )
    (tmp_path / "copy" / "tokenizer.json").write_text(json.dumps(changed))
    assert tokenization(load_model(f"hf:{tmp_path}/copy")) != one


def test_saved_students_load_by_transformers(folder: Path, tmp_path: Path) -> None:
    model = load_model(f"hf:{folder}?max_length=9")
    reference = model.save(model, tmp_path / "saved")
    assert reference == f"hf:{tmp_path}/saved?max_length=9"
    assert load_model(reference).fingerprint(precision="no") == model.fingerprint(precision="no")
    found = transformers.pipeline("text-classification", model=str(tmp_path / "saved"))("a nest and a beak")
    assert found[0]["label"] == "birds"


def test_a_module_finds_its_tokenizer_beside_its_weights(folder: Path) -> None:
    module = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    model = load_copy(module)
    own = tokenization(model)
    assert own == tokenization(load_model(f"hf:{folder}"))
    module.name_or_path = ""
    with pytest.raises(ModelError, match="classifies texts, and there is no tokenizer beside it"):
        load_model(module)


def test_new_classes(folder: Path, tmp_path: Path) -> None:
    head = new_head(load_copy(f"hf:{folder}"), ("one", "two", "three", "four"))
    assert head.classifier.num_classes == 4 and head.scale == 1.0
    reference = head.classifier.save(head.classifier, tmp_path / "four")
    assert reference is not None
    saved = load_model(reference)
    assert saved.class_names == ("one", "two", "three", "four")


def test_positions_that_padding_takes_are_not_counted(tmp_path: Path) -> None:
    small: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    config = transformers.RobertaConfig(
        vocab_size=99, max_position_embeddings=20, pad_token_id=0, num_labels=2, **small
    )
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 10**30
    for one in (transformers.RobertaForSequenceClassification(config), tokenizer):
        one.save_pretrained(tmp_path)
    model = load_model(f"hf:{tmp_path}")
    own = tokenization(model)
    assert own.limit == own.max_length == 19
    assert model.logits(own.largest(2)).shape == (2, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_labels": 1}, "gives one number a text"),
        ({"pad_token_id": None}, "no padding token, so several texts cannot be read at once"),
        ({"vocab_size": 60}, r"tokenizer knows \d+ tokens, the model 60"),
    ],
)
def test_models_that_cannot_be_used(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    small: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    config = transformers.BertConfig(**{"vocab_size": 99, "num_labels": 2, "pad_token_id": 0, **small, **change})
    if change.get("pad_token_id", 0) is None:
        config.pad_token_id = None
    for one in (transformers.BertForSequenceClassification(config), tiny_tokenizer()):
        one.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=message):
        load_model(f"hf:{tmp_path}")


def test_a_model_without_a_tokenizer(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, tmp_path / name)
    with pytest.raises(ModelError, match=r"no tokenizer beside it that can be loaded: save it there"):
        load_model(f"hf:{tmp_path}")
