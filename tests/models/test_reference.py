"""Model references: parsing, printing, and the messages for mistakes."""

import pytest

from gainfinder.errors import BadReference
from gainfinder.models.preprocessing import Preprocessing
from gainfinder.models.reference import ModelRef, parse_model_ref

BAD_SHARES = ("1e-7", "1e-320", "1e-4", "inf", "-inf", "nan", "0", "-1", "3", "x", "1" * 5000)
ALL = [
    "resnet18",
    "resnet18.a1_in1k",
    "hf-hub:timm/resnet18.a1_in1k@main",
    "local-dir:models/what?.d",
    "local-dir:/a/b?size=64",
    "torchvision:resnet50",
    "torchvision:resnet50/IMAGENET1K_V2",
    "torchvision:resnet50/DEFAULT@w/x@2.pt",
    "torchvision:resnet50@w/x.pt?size=64",
    "hf:google/vit-base-patch16-224",
    "hf:./folder?mean=0.5,0.5,0.5&std=0.5",
    "file:nets/a.py:resnet20",
    "file:nets/a.py:resnet20@w.pth.tar",
    "onnx:nets/a.onnx",
    "onnx:~/a@2.onnx?size=64&output=probs&classes=@names.txt",
    "table:run/predictions.parquet",
    "table:a.csv?num_classes=10",
    "table:a.csv?classes=cat,dog",
    "file:a.py:f@run@2/w.pt?size=32x48&crop_pct=1&crop_mode=squash&interpolation=bicubic&classes=@names.txt",
]


@pytest.mark.parametrize("text", ALL)
def test_a_reference_prints_as_it_was_written(text: str) -> None:
    assert str(parse_model_ref(text)) == text


def test_the_parts_are_found() -> None:
    ref = parse_model_ref("torchvision:resnet50/IMAGENET1K_V2@w.pt?size=64")
    assert ref == ModelRef(
        source="torchvision", name="resnet50", tag="IMAGENET1K_V2", weights="w.pt", query=(("size", "64"),)
    )
    ref = parse_model_ref("file:nets/a.py:resnet20@w.pt")
    assert ref == ModelRef(source="file", name="nets/a.py", factory="resnet20", weights="w.pt")
    assert parse_model_ref("onnx:a/b.onnx?size=3") == ModelRef(source="onnx", name="a/b.onnx", query=(("size", "3"),))
    assert parse_model_ref("table:a.csv") == ModelRef(source="table", name="a.csv")
    assert parse_model_ref("hf-hub:a/b").name == "hf-hub:a/b"
    assert parse_model_ref("C:\\models").source == "timm"
    assert ref.setting("size") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("?size=3", "is empty"),
        ("fiel:a.py:f", "unknown prefix 'fiel:' .* near matches: file:"),
        ("torchvison:resnet18", "near matches: torchvision:"),
        ("local_dir:x", "near matches: local-dir:"),
        ("torchvision:", "names nothing after 'torchvision:'"),
        ("torchvision:/DEFAULT", "NAME is empty"),
        ("torchvision:resnet18/", "WEIGHTS is empty"),
        ("torchvision:resnet18@", "PATH is empty"),
        ("hf:", "names nothing"),
        ("local-dir:", "names nothing"),
        ("file:a.txt:f", "names no Python file"),
        ("file:a.py", "names no factory"),
        ("file:a.py:", "FACTORY is empty"),
        ("file:a.py:f@", "WEIGHTS is empty"),
        ("resnet18?sise=3", "unknown setting 'sise' .* near matches: size"),
        ("resnet18?size=", "has no value"),
        ("resnet18?size=3&size=4", "given twice"),
        ("onxx:a.onnx", "unknown prefix 'onxx:' .* near matches: onnx:"),
        ("tabel:a.csv", "near matches: table:"),
        ("onnx:", "names nothing after 'onnx:'"),
        ("table:?num_classes=3", "names nothing after 'table:'"),
        (
            "onnx:a.onnx?outputs=probs",
            "unknown setting 'outputs' .* near matches: output, output_name; known: size, mean",
        ),
        ("table:a.csv?num_clases=3", "unknown setting 'num_clases' .* near matches: num_classes"),
        ("table:a.csv?size=3", "unknown setting 'size' .*; known: classes, num_classes"),
        ("resnet18?output_name=y", "unknown setting 'output_name' .* near matches: output"),
        ("resnet18?size=1x100000", "size=1x100000 .* expected an edge .*, from 1 to 4096"),
        ("resnet18?size=8x8x8", "size=8x8x8"),
        ("resnet18?size=1_0", "size=1_0"),
        (f"resnet18?size={'9' * 5000}", r"size=999.*characters\)….*from 1 to 4096"),
        (f"table:a.csv?num_classes={'1' * 5000}", "expected a number of classes from 1 to 1,000,000"),
        ("resnet18?crop_roundin=down", "near matches: crop_rounding"),
        ("file:a.py:f@w.pt?num_classes=0", "num_classes=0 .* from 1 to 1,000,000"),
        *((f"resnet18?crop_pct={text}", "expected a number from 0.05 to 2") for text in BAD_SHARES),
        *((f"resnet18?mean={text}", "of inputs scaled to 0 to 1") for text in ("nan", "inf", "123.7", "0,0,0,0", "x")),
        *((f"resnet18?std={text}", "of inputs scaled to 0 to 1") for text in ("0", "-1", "1e-320", "58.4")),
    ],
)
def test_mistakes_are_told(text: str, message: str) -> None:
    with pytest.raises(BadReference, match=message) as caught:
        parse_model_ref(text)
    assert "\n" not in str(caught.value)


def test_images_are_not_resized_beyond_measure() -> None:
    plain = Preprocessing(input_size=(3, 8, 8))
    made = plain.with_overrides((("size", "224"), ("crop_pct", "0.05")), reference="r")
    assert (made.view_size, made.crop_pct) == ((224, 224), 0.05)
    with pytest.raises(BadReference, match="images would be resized to 81,920 pixels, expected at most 16,384"):
        plain.with_overrides((("size", "4096"), ("crop_pct", "0.05")), reference="r")


def test_the_rounding_of_a_crop_is_in_no_digest_where_it_is_timms() -> None:
    """Results and banks of versions without the setting are read again."""
    plain = Preprocessing(input_size=(3, 8, 8))
    assert list(plain.described()) == ["input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode"]
    down = plain.with_overrides((("crop_rounding", "down"),), reference="r")
    assert down.described() == {**plain.described(), "crop_rounding": "down"}
    with pytest.raises(BadReference, match="crop rounding 'up' is unknown: expected one of even, down"):
        plain.with_overrides((("crop_rounding", "up"),), reference="r")
