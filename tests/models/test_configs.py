"""Configurations and folders that no library is to be given."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gainfinder.errors import GainfinderError, ModelError
from gainfinder.models import load_model
from gainfinder.models.configs import check_files, read_config


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "holds a list: expected an object"),
        ("null", "holds a NoneType"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        (json.dumps({"a": nested(100)}), "nested more than 64 deep"),
        ('{"num_classes": ' + "9" * 5000 + "}", "cannot be read as JSON"),
        ('{"num_classes": ' + "9" * 500 + "}", "'num_classes' is 99999999999999999999: expected at most 1,000,000"),
        ('{"hidden_size": 1e400}', "'hidden_size' is inf: expected at most"),
        ('{"hidden_size": NaN}', "'hidden_size' is nan: expected at most"),
        ('{"num_hidden_layers": 100000}', "'num_hidden_layers' is 100000: expected at most 2,000"),
        ('{"model_args": {"depths": [2, 1000000]}}', "'depths' is 1000000"),
    ],
)
def test_what_no_model_has_is_told(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=rf"^it: config\.json.*{message}") as caught:
        read_config(tmp_path / "config.json", reference="it")
    assert "\n" not in str(caught.value)


def test_a_usual_configuration_is_read(tmp_path: Path) -> None:
    config = {"architecture": "vit", "num_classes": 21841, "layer_norm_eps": 1e-6, "time": 1_700_000_000}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_config(tmp_path / "config.json", reference="it") == config


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "nowhere")
    check_files(tmp_path, reference="it")
    os.mkfifo(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"^it: 'pytorch_model\.bin' in its folder is no regular file: remove it"):
        check_files(tmp_path, reference="it")


@pytest.mark.parametrize(
    "reference",
    [
        "local-dir:~nosuchuser/model",
        "hf:~nosuchuser/model",
        "file:~nosuchuser/net.py:net",
        "onnx:~nosuchuser/net.onnx",
        "local-dir:" + "x" * 5000,
        "hf:/" + "x" * 300,
        "file:/" + "x" * 300 + ".py:net",
        "file:net\0.py:net",
        "onnx:net\0.onnx",
        "x" * 5000,
    ],
)
def test_paths_that_no_file_can_have_are_told(reference: str) -> None:
    with pytest.raises(GainfinderError, match=r"no home folder|cannot be looked up") as found:
        load_model(reference)
    assert "\n" not in str(found.value)
