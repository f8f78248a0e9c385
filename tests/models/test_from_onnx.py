"""ONNX files: the same logits as the module they were written from, and the messages where they cannot be used."""

import copy
import logging
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gainfinder
from gainfinder.errors import BadReference, GainfinderError, MissingExtra, ModelError
from gainfinder.models import load_copy, load_model
from gainfinder.models.from_onnx import OnnxModule, _files
from onnx_files import FLOAT, FLOAT16, UINT8, Net, write

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper = onnx.helper

STATISTICS = "mean=0.5&std=0.5"


@pytest.fixture
def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().eval()


def images(count: int = 5, channels: int = 3) -> Tensor:
    return torch.randn(count, channels, 16, 16, generator=torch.Generator().manual_seed(1))


def test_the_logits_are_those_of_the_module(net: Net, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "net.onnx", net)
    classifier = load_model(f"onnx:{path}?{STATISTICS}&classes=a,b,c,d")
    assert classifier.reference == f"onnx:{path}?{STATISTICS}&classes=a,b,c,d"
    assert classifier.preprocessing.input_size == (3, 16, 16)
    assert classifier.preprocessing.mean == (0.5, 0.5, 0.5)
    assert classifier.class_names == ("a", "b", "c", "d") and classifier.num_classes == 4
    assert not list(classifier.module.parameters())
    with torch.inference_mode():
        logits = classifier.logits(images())
        torch.testing.assert_close(logits, net(images()), rtol=1e-5, atol=1e-5)
    assert logits.dtype == torch.float32
    out, err = capfd.readouterr()
    assert out == "" and not [line for line in err.splitlines() if not line.startswith("note: ")]  # ORT is silent


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_fixed_number_of_images_is_filled_up(net: Net, tmp_path: Path, count: int) -> None:
    classifier = load_model(f"onnx:{write(tmp_path / 'net.onnx', net, shape=(2, 3, 16, 16))}?{STATISTICS}")
    torch.testing.assert_close(classifier.logits(images(count)), net(images(count)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [("N", 16, 16, 3), (1, 16, 16, 3), ("N", "H", "W", 3)])
def test_channels_may_come_last(net: Net, tmp_path: Path, shape: tuple[int | str, ...]) -> None:
    path = write(tmp_path / "net.onnx", net, shape=shape, channels_last=True)
    classifier = load_model(f"onnx:{path}?{STATISTICS}" + ("&size=16" if "H" in shape else ""))
    assert classifier.preprocessing.input_size == (3, 16, 16)
    torch.testing.assert_close(classifier.logits(images()), net(images()), rtol=1e-5, atol=1e-5)


def test_one_channel(tmp_path: Path) -> None:
    grey = Net(channels=1).eval()
    classifier = load_model(f"onnx:{write(tmp_path / 'net.onnx', grey, shape=('N', 1, 16, 16))}?{STATISTICS}")
    assert classifier.preprocessing.mean == (0.5,)
    torch.testing.assert_close(classifier.logits(images(channels=1)), grey(images(channels=1)), rtol=1e-5, atol=1e-5)


def test_half_precision(net: Net, tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", net, dtype=FLOAT16)
    logits = load_model(f"onnx:{path}?{STATISTICS}").logits(images())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, net(images()), rtol=1e-2, atol=1e-2)


def test_the_output_named_logits_wins_over_the_first(net: Net, tmp_path: Path) -> None:
    both = write(tmp_path / "both.onnx", net, outputs=("features", "logits"))
    assert load_model(f"onnx:{both}?{STATISTICS}").num_classes == 4
    first = write(tmp_path / "first.onnx", net, outputs=("features",))
    assert load_model(f"onnx:{first}?{STATISTICS}").num_classes == 8


def test_probabilities_become_log_probabilities(net: Net, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "net.onnx", net, probs=True)
    expected = net(images()).log_softmax(dim=1)
    found = load_model(f"onnx:{path}?{STATISTICS}")
    assert "its outputs are probabilities" in caplog.text
    torch.testing.assert_close(found.logits(images()), expected, rtol=1e-4, atol=1e-4)
    caplog.clear()
    told = load_model(f"onnx:{path}?{STATISTICS}&output=probs")
    assert torch.equal(told.logits(images()), found.logits(images()))
    as_they_are = load_model(f"onnx:{path}?{STATISTICS}&output=logits")
    torch.testing.assert_close(as_they_are.logits(images()), expected.exp(), rtol=1e-4, atol=1e-4)
    assert caplog.text == ""
    # logits are not mistaken for them
    assert load_model(f"onnx:{write(tmp_path / 'z.onnx', net)}?{STATISTICS}").output == "logits"


def test_a_sigmoid_becomes_log_odds(net: Net, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "net.onnx", net, last="Sigmoid")
    found = load_model(f"onnx:{path}?{STATISTICS}")
    assert "as those of a sigmoid do" in caplog.text
    torch.testing.assert_close(found.logits(images()), net(images()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [("N", 16, 16, 3), (1, 16, 16, 3)])
def test_a_file_of_uint8_gets_pixels(net: Net, tmp_path: Path, shape: tuple[int | str, ...]) -> None:
    path = write(tmp_path / "net.onnx", net, dtype=UINT8, shape=shape, channels_last=True)
    found = load_model(f"onnx:{path}")
    assert (found.preprocessing.mean, found.preprocessing.std) == ((0.0,) * 3, (1.0,) * 3)
    pixels = torch.randint(0, 256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.logits(pixels / 255), net(pixels / 255), rtol=1e-4, atol=1e-4)
    for setting in ("mean=0.5", "std=0.5"):
        with pytest.raises(BadReference, match=f"{setting} in .* the file takes pixels from 0 to 255"):
            load_model(f"onnx:{path}?{setting}")


def test_an_output_can_be_chosen(net: Net, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "net.onnx", net, outputs=("features", "f"))
    assert load_model(f"onnx:{path}?{STATISTICS}").num_classes == 8
    assert "its output 'features' is taken, the first of features, f; ?output_name= takes another" in caplog.text
    both = write(tmp_path / "both.onnx", net, outputs=("features", "logits"))
    caplog.clear()
    features, logits = (load_model(f"onnx:{both}?{STATISTICS}&output_name={name}") for name in ("features", "logits"))
    assert (features.num_classes, logits.num_classes, caplog.text) == (8, 4, "")
    assert features.fingerprint(precision="fp32") != logits.fingerprint(precision="fp32")
    saved = features.save(features, tmp_path / "out")
    assert saved is not None and load_model(saved).num_classes == 8
    with pytest.raises(
        BadReference, match=r"has no output 'logit' .*near matches: logits; there are: features, logits"
    ):
        load_model(f"onnx:{both}?{STATISTICS}&output_name=logit")


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "x" * 5000, "a\0b"])
def test_weights_outside_the_folder_are_not_read(net: Net, tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(100_000))
    model = onnx.load(write(folder / "net.onnx", net))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    assert _files(folder / "net.onnx") == [folder / "net.onnx"]
    with pytest.raises(ModelError, match="cannot open") as caught:
        load_model(f"onnx:{folder}/net.onnx?{STATISTICS}")
    assert "\n" not in str(caught.value)


def test_the_normalisation_is_the_files_or_imagenets_with_a_note(
    net: Net, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a.onnx", net)
    with caplog.at_level(logging.WARNING, logger="gainfinder"):
        assert load_model(f"onnx:{path}").preprocessing.mean == (0.485, 0.456, 0.406)
    assert caplog.messages == [
        f"onnx:{path}: the file does not say how its input is normalised; ImageNet's mean 0.485,0.456,0.406 and std "
        "0.229,0.224,0.225 are used: give ?mean=…&std=… if it was trained otherwise (mean 0 and std 1 for inputs "
        "from 0 to 1, mean 0 and std 0.00392157 for 0 to 255)"
    ]
    caplog.clear()
    load_model(f"onnx:{path}?mean=0.1")
    assert "ImageNet's std 0.229,0.224,0.225 are used: give ?std=…" in caplog.text
    caplog.clear()
    path = write(tmp_path / "b.onnx", net, metadata={"image_mean": "[0.1, 0.2, 0.3]", "std": "0.5"})
    preprocessing = load_model(f"onnx:{path}").preprocessing
    assert preprocessing.mean == (0.1, 0.2, 0.3) and preprocessing.std == (0.5, 0.5, 0.5)
    assert load_model(f"onnx:{path}?mean=0.4").preprocessing.mean == (0.4, 0.4, 0.4)
    assert caplog.text == ""


def test_an_open_size_has_to_be_given(net: Net, tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", net, shape=("N", 3, "height", 16))
    with pytest.raises(ModelError) as caught:
        load_model(f"onnx:{path}")
    assert str(caught.value) == (
        f"onnx:{path}: the file leaves its input size open (height, width: ?, 16): add ?size=EDGE or "
        "?size=HEIGHTxWIDTH to the reference"
    )
    classifier = load_model(f"onnx:{path}?{STATISTICS}", size=(20, 16))
    assert classifier.preprocessing.view_size == (20, 16)
    with pytest.raises(BadReference, match=r"^size=20 in .* does not fit the file, .*: \?, 16$"):
        load_model(f"onnx:{path}?size=20")


def test_the_digest_is_that_of_the_content(net: Net, tmp_path: Path) -> None:
    one = load_model(f"onnx:{write(tmp_path / 'a.onnx', net)}?{STATISTICS}")
    same = load_model(f"onnx:{write(tmp_path / 'b.onnx', net)}?{STATISTICS}")
    with torch.no_grad():
        net.head.bias.add_(1)
    other = load_model(f"onnx:{write(tmp_path / 'c.onnx', net)}?{STATISTICS}")
    assert one.weights_digest() == same.weights_digest() != other.weights_digest()


def test_weights_in_other_files_are_part_of_the_model(net: Net, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        write(folder / "net.onnx", net, external="net.data")
        with torch.no_grad():
            net.conv.weight += 1
    one, other = (load_model(f"onnx:{folder / 'net.onnx'}?{STATISTICS}") for folder in folders)
    assert (folders[0] / "net.onnx").read_bytes() == (folders[1] / "net.onnx").read_bytes()
    assert one.weights_digest() != other.weights_digest()
    saved = one.save(one, tmp_path / "saved")
    assert saved == f"onnx:{tmp_path / 'saved' / 'net.onnx'}?{STATISTICS}"
    again = load_model(saved)
    assert again.weights_digest() == one.weights_digest()
    assert torch.equal(again.logits(images()), one.logits(images()))
    (folders[0] / "net.data").unlink()
    with pytest.raises(ModelError, match=r"ONNX Runtime .* cannot open .*net\.onnx'.*net\.data") as caught:
        load_model(f"onnx:{folders[0] / 'net.onnx'}?{STATISTICS}")
    assert "\n" not in str(caught.value)


def test_copies_and_pickles_open_the_file_again(net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "net.onnx", net)
    monkeypatch.chdir(tmp_path)
    classifier = load_model(f"onnx:net.onnx?{STATISTICS}")
    expected = classifier.logits(images())
    monkeypatch.chdir("/")
    for module in (copy.deepcopy(classifier.module), pickle.loads(pickle.dumps(classifier.module))):
        assert torch.equal(module(images()), expected)
    own = load_copy(classifier)
    assert own.weights_digest() == classifier.weights_digest()
    with torch.no_grad():
        net.head.bias.add_(1)
    write(path, net)
    assert torch.equal(classifier.logits(images()), expected)  # it was opened before
    with pytest.raises(ModelError, match=r"^onnx:net\.onnx.*: the file has changed since it was loaded$"):
        own.logits(images())


def test_the_runtime_uses_as_many_threads_as_torch(net: Net, tmp_path: Path) -> None:
    classifier = load_model(f"onnx:{write(tmp_path / 'net.onnx', net)}?{STATISTICS}")
    assert isinstance(classifier.module, OnnxModule)
    (session,) = classifier.module._sessions.values()
    assert session.get_session_options().intra_op_num_threads == torch.get_num_threads()
    assert session.get_providers() == ["CPUExecutionProvider"]


def two_inputs(path: Path) -> str:
    infos = [helper.make_tensor_value_info(name, FLOAT, ("N", 3, 16, 16)) for name in "ab"]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "g", infos, [
        helper.make_tensor_value_info("c", FLOAT, None)
    ])  # fmt: skip
    return store(path, graph)


def store(path: Path, graph: Any) -> str:
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return f"onnx:{path}"


def one_node(path: Path, kind: int, operator: str, out: int, shape: Sequence[int | str] = ("N", 3, 16, 16)) -> str:
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", out, None)],
    )
    return store(path, graph)


def test_files_that_are_no_classifiers_are_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    int64 = onnx.TensorProto.INT64
    a, b, c, d, e, f, g = (tmp_path / f"{letter}.onnx" for letter in "abcdefg")
    for reference, message in (
        (two_inputs(a), r"expected a file with one input, the images, got 2 \(a, b\)"),
        (
            one_node(b, int64, "Identity", int64),
            r"its input 'x' is tensor\(int64\)\(N, 3, 16, 16\): expected float.*uint8",
        ),
        (one_node(c, FLOAT, "Shape", int64), r"its output 'y' is tensor\(int64\): expected floating-point logits"),
        (one_node(d, FLOAT, "Identity", FLOAT), r"expected logits of shape \(1, classes\) for one image, got \(1, 3"),
        (one_node(e, FLOAT, "Identity", FLOAT, ("N", 12)), r"is tensor\(float\)\(N, 12\): expected \(images, channel"),
        (one_node(f, FLOAT, "Identity", FLOAT, ("N", 4, 8, 8)), r"with 1 or 3 channels"),
        (f"onnx:{write(g, Net(), metadata={'mean': 'none'})}", r"mean in the file's metadata is 'none': expected num"),
    ):
        with pytest.raises(ModelError, match=f"^onnx:.*{message}") as caught:
            load_model(reference)
        assert "\n" not in str(caught.value)
    assert load_model(f"onnx:{g}?mean=0.5").preprocessing.mean == (0.5, 0.5, 0.5)
    out, err = capfd.readouterr()
    assert out == "" and not [line for line in err.splitlines() if not line.startswith("note: ")]  # ORT is silent


def test_files_that_cannot_be_opened_are_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "net.onnx", Net())
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name, message in (
        ("nte.onnx", r"the file '.*nte\.onnx' does not exist; near matches: net\.onnx"),
        ("", "the file '.*' is a folder"),
        ("text.onnx", r"ONNX Runtime .* cannot open '.*text\.onnx': "),
        ("empty.onnx", r"ONNX Runtime .* cannot open '.*empty\.onnx': "),
    ):
        with pytest.raises(ModelError, match=message) as caught:
            load_model(f"onnx:{tmp_path / name}")
        assert "\n" not in str(caught.value)
    with pytest.raises(
        BadReference, match=r"^output=prob in .* cannot be used; near matches: probs; expected one of logits"
    ):
        load_model(f"onnx:{tmp_path / 'net.onnx'}?output=prob")
    with pytest.raises(BadReference, match=r"is a file: give it as onnx:.*net\.onnx"):
        load_model(str(tmp_path / "net.onnx"))
    out, err = capfd.readouterr()
    assert out == "" and not [line for line in err.splitlines() if not line.startswith("note: ")]  # ORT is silent


def test_without_the_package(net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "net.onnx", net)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"^onnx:.* needs the package 'onnxruntime': .*gainfinder\[onnx\]"):
        load_model(f"onnx:{path}")


@pytest.fixture
def digits(tmp_path: Path) -> str:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        path = write(tmp_path / "digits.onnx", Net(classes=10))
    return f"onnx:{path}?{STATISTICS}&classes={','.join(map(str, range(10)))}"


def test_a_file_is_scanned_asked_and_teaches_but_does_not_learn(zoo: dict[str, str], digits: str) -> None:
    settings: dict[str, Any] = {"device": "cpu", "workers": 0}
    assert gainfinder.predict(digits, "digits#1/40", **settings).logits.shape[1] == 10
    assert len(gainfinder.scan([digits, zoo["vit"]], "digits#1/40", **settings).pairs) == 2
    done = gainfinder.transfer(zoo["vit"], digits, "digits#2/40", val="digits#1/40", epochs=1, **settings)
    assert done.metrics.teachers == (digits,)
    with pytest.raises(GainfinderError, match="the student has no weight that can be trained"):
        gainfinder.transfer(digits, zoo["vit"], "digits#2/40", val="digits#1/40", **settings)


def test_a_module_of_its_own_name(net: Net, tmp_path: Path) -> None:
    module = OnnxModule(write(tmp_path / "net.onnx", net), reference="mine")
    assert load_model(module, size=16).num_classes == 4


@pytest.mark.parametrize(
    "metadata",
    [
        {"names": "{0: 'cat', 1: 'ant', 2: 'bee', 3: 'dog'}"},
        {"classes": '["cat", "ant", "bee", "dog"]'},
        {"labels": "cat,ant,bee,dog"},
    ],
)
def test_class_names_of_the_metadata_are_read(metadata: dict[str, str], tmp_path: Path) -> None:
    path = write(tmp_path / "named.onnx", Net(), metadata=metadata)
    assert load_model(f"onnx:{path}").class_names == ("cat", "ant", "bee", "dog")
    assert load_model(f"onnx:{path}?classes=a,b,c,d").class_names == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("names", "told"), [("{0: cat}", "cannot be read"), ("['a', 'b']", "names 2 classes, it has 4 outputs")]
)
def test_class_names_of_the_metadata_that_do_not_fit_are_told(
    names: str, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "named.onnx", Net(), metadata={"names": names})
    assert load_model(f"onnx:{path}").class_names is None
    assert told in caplog.text
