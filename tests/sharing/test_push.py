"""Students on a stand-in for the hub, sent by the hub's own client and loaded by plain timm and transformers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import ModelCard, constants
from typer.testing import CliRunner

import gainfinder
from gainfinder.cli import app
from gainfinder.errors import GainfinderError, HubError, ModelError, RunFolderError, SettingsError
from hub_server import Hub

NAME = "ann/better"
X = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
Told = Callable[..., None]


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)


@pytest.fixture
def transformed(result: Path, told: Told) -> Path:
    """The same result, its student a vision transformer of transformers with names of classes in a file beside it."""
    transformers = pytest.importorskip("transformers")
    student = result / "student"
    shutil.rmtree(student)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(**small, image_size=16, patch_size=8, num_labels=10)
    transformers.ViTForImageClassification(config).save_pretrained(student)
    processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16})
    processor.save_pretrained(student)
    written = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps({**written, "_name_or_path": "/home/ann/secret/vit"}))
    (student / "classes.txt").write_text("\n".join(f"digit {i}" for i in range(10)) + "\n")
    told(student_reference=f"hf:{student}?classes=@{student}/classes.txt")
    return result


def test_plain_timm_loads_what_was_pushed(result: Path, hub: Hub) -> None:
    found = gainfinder.push(result, NAME, message="first")
    assert hub.commits == [(NAME, "first", ["README.md", "config.json", "model.safetensors"])], "one commit, no report"
    assert found.commit == hub.sha(NAME) and found.url == f"{hub.url}/{NAME}" and NAME not in hub.private
    assert found.files["model.safetensors"] == (result / "student" / "model.safetensors").stat().st_size
    model: Any = timm.create_model(f"hf-hub:{NAME}", pretrained=True).eval()
    ours = gainfinder.load_model(f"local-dir:{result}/student")
    torch.testing.assert_close(model(X), ours.module(X), rtol=0, atol=0)
    assert model.pretrained_cfg["label_names"] == [str(digit) for digit in range(10)]
    assert [*timm.data.resolve_data_config({}, model=model)["mean"]] == [0.5, 0.5, 0.5]
    again = gainfinder.load_model(found.reference)
    assert again.preprocessing == ours.preprocessing and again.class_names == ours.class_names
    assert again.weights_digest() == ours.weights_digest()
    card = ModelCard(hub.repositories[NAME]["README.md"].decode())
    document = json.loads((result / "result.json").read_text())
    assert card.data.eval_results[0].metric_value == document["accuracy_after"]  # type: ignore[attr-defined]
    assert f'create_model("hf-hub:{NAME}", pretrained=True)' in card.text and str(result) not in card.text
    assert len(hub.cards) == 1, "the client has the hub check it"


def test_plain_transformers_loads_what_was_pushed(transformed: Path, hub: Hub) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    found = gainfinder.push(transformed, NAME, private=True)
    assert found.library == "transformers" and NAME in hub.private
    model = AutoModelForImageClassification.from_pretrained(NAME).eval()
    ours = gainfinder.load_model(f"hf:{transformed}/student")
    torch.testing.assert_close(model(X).logits, ours.module(X).logits, rtol=0, atol=0)
    assert model.config.id2label == {i: f"digit {i}" for i in range(10)}
    assert AutoImageProcessor.from_pretrained(NAME).size["height"] == 16
    assert b"secret" not in b"".join(hub.repositories[NAME].values())
    again = gainfinder.load_model(found.reference)
    assert again.class_names == tuple(f"digit {i}" for i in range(10))


def test_a_trial_sends_nothing(result: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gainfinder.sharing.push.HfApi", None)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    found = gainfinder.push(result, NAME, dry_run=True)
    assert found.commit is None and {*found.files} == {"README.md", "config.json", "model.safetensors"}


def test_what_others_wrote_is_not_replaced_unasked(result: Path, hub: Hub) -> None:
    hub.repositories[NAME] = {".gitattributes": b"", "config.json": b"{}", "notes.txt": b"mine"}
    with pytest.raises(HubError, match=r"2 file.s. that gainfinder did not write.*config\.json") as error:
        gainfinder.push(result, NAME)
    assert "replace=True" in one_line(error.value) and not hub.commits
    gainfinder.push(result, NAME, replace=True)
    assert hub.repositories[NAME]["notes.txt"] == b"mine" and hub.repositories[NAME]["config.json"] != b"{}"
    gainfinder.push(result, NAME)
    assert len(hub.commits) == 2, "what gainfinder wrote it may replace"
    hub.repositories[NAME]["README.md"] += b"changed on the hub"
    with pytest.raises(HubError, match=r"README\.md"):
        gainfinder.push(result, NAME)


def test_a_card_written_by_hand_goes_along(result: Path, hub: Hub) -> None:
    (result / "student" / "README.md").write_text("# my own\n")
    found = gainfinder.push(result, NAME)
    assert found.own_card and hub.repositories[NAME]["README.md"] == b"# my own\n"


@pytest.mark.parametrize(
    "name",
    [
        "better",
        "a/b/c",
        "ann/",
        "/better",
        "ann/be tter",
        "ann/-better",
        "ann/be--tter",
        "ann/a..b",
        "ä/b",
        "a/" + "b" * 97,
    ],
)
def test_a_name_that_no_hub_takes(result: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="expected USER/NAME"):
        gainfinder.push(result, name)


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (shutil.rmtree, RunFolderError, "better"),
        (lambda path: (path / "result.json").unlink(), RunFolderError, "not finished"),
        (lambda path: (path / "config.json").unlink(), RunFolderError, "no result of gainfinder"),
        (lambda path: (path / "head.json").touch(), RunFolderError, "new head"),
        (
            lambda path: (path / "scan.json").write_text('{"models": [], "data": "x", "student": 1}'),
            RunFolderError,
            "holds a scan|not as gainfinder wrote it",
        ),
        (lambda path: (path / "student" / "model.safetensors").write_bytes(b"half"), ModelError, "timm cannot load"),
        (lambda path: (path / "student" / "config.json").unlink(), ModelError, "no config.json"),
    ],
    ids=["missing", "unfinished", "other", "head", "scan", "damaged", "incomplete"],
)  # fmt: skip
def test_a_folder_that_cannot_be_pushed(
    result: Path, change: Callable[[Path], object], kind: type[GainfinderError], said: str
) -> None:
    change(result)
    with pytest.raises(kind, match=said) as error:
        gainfinder.push(result, NAME)
    assert one_line(error.value)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("file:nets.py:small@w.safetensors", "of pytorch: neither timm nor transformers"),
        ("torchvision:resnet18@w.safetensors", "of torchvision: neither"),
        (None, "weights without a reference"),
        ("hf:better/student?trust_remote_code=yes", "code of its own"),
    ],
)
def test_a_student_that_plain_libraries_cannot_load(result: Path, told: Told, reference: str | None, said: str) -> None:
    told(student_reference=reference)
    with pytest.raises(ModelError, match=said) as error:
        gainfinder.push(result, NAME)
    assert "publish" in one_line(error.value)


def test_a_hub_that_cannot_be_asked(result: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(HubError, match="cannot be reached") as error:
        patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        gainfinder.push(result, NAME)
    assert "nothing was sent" in one_line(error.value)
    with monkeypatch.context() as patch, pytest.raises(SettingsError, match="no token"):
        patch.setattr("gainfinder.sharing.push.get_token", lambda: None)
        gainfinder.push(result, NAME)
    with monkeypatch.context() as patch, pytest.raises(HubError, match="refuses this token"):
        patch.setenv("HF_TOKEN", "hf_anotherOneThatIsWrong")
        gainfinder.push(result, NAME)
    assert not hub.commits


@pytest.mark.parametrize(
    ("status", "said"), [(400, "did not take it"), (403, "refuses this token"), (412, "meanwhile")]
)
def test_a_commit_that_fails(result: Path, hub: Hub, status: int, said: str) -> None:
    hub.failing = status
    with pytest.raises(HubError, match=said) as error:
        gainfinder.push(result, NAME)
    assert NAME in one_line(error.value)
    gainfinder.push(result, NAME)
    assert len(hub.commits) == 1


def test_the_command_says_what_it_sent(result: Path, hub: Hub) -> None:
    runner = CliRunner()
    tried = runner.invoke(app, ["push", str(result), NAME, "--dry-run"])
    assert tried.exit_code == 0 and f"would be sent to {hub.url}/{NAME}" in tried.stdout and not hub.commits
    sent = runner.invoke(app, ["push", str(result), NAME, "--json"])
    document = json.loads(sent.stdout)
    assert document["commit"] == hub.sha(NAME) and document["reference"] == f"hf-hub:{NAME}"
    shown = runner.invoke(app, ["push", str(result), NAME])
    assert f'timm.create_model("hf-hub:{NAME}", pretrained=True)' in shown.stdout
    hub.repositories[NAME]["README.md"] = b"another's"
    refused = runner.invoke(app, ["push", str(result), NAME])
    assert refused.exit_code == 2 and "--replace" in refused.stderr and "Traceback" not in refused.stderr


def test_plain_transformers_loads_texts_classifiers(text_results: dict[str, Path], hub: Hub, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = Path(shutil.copytree(text_results["transfer"], tmp_path / "run"))
    found = gainfinder.push(folder, NAME)
    assert (found.library, found.noun) == ("transformers", "text")
    tokenizer, model = AutoTokenizer.from_pretrained(NAME), AutoModelForSequenceClassification.from_pretrained(NAME)
    tokens = tokenizer(["a song of the bark", "it was a fish"], padding=True, return_tensors="pt")
    ours = gainfinder.load_model(f"hf:{folder}/student").module
    torch.testing.assert_close(model.eval()(**tokens).logits, ours(**tokens).logits, rtol=0, atol=0)
    assert tuple(model.config.id2label.values()) == ("birds", "fish", "trees")
    card = hub.repositories[NAME]["README.md"].decode()
    assert f'AutoModelForSequenceClassification.from_pretrained("{NAME}")' in card and "text-classification" in card
    command = CliRunner().invoke(app, ["push", str(folder), NAME, "--dry-run"])
    assert f'transformers.AutoModelForSequenceClassification.from_pretrained("{NAME}")' in command.stdout
