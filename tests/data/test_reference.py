import pytest

from gainfinder.data import DataRef, parse_data_ref
from gainfinder.errors import BadReference


@pytest.mark.parametrize(
    "text",
    ["photos", "a/b.tar#2/3", "hfds/x/y?split=train[:10%]&root=r", "torch/cifar10?split=test#1/2", "odd?.tar", "a#b"],
)
def test_a_reference_prints_back_identically(text: str) -> None:
    assert str(parse_data_ref(text)) == text


def test_the_pieces_of_a_reference() -> None:
    ref = parse_data_ref("hfds/x?split=train#2/3")
    assert ref == DataRef(base="hfds/x", query=(("split", "train"),), part=(2, 3))
    assert ref.get("split") == "train"
    assert ref.get("root") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("photos#0/3", "part #0/3 .* does not exist: expected #k/n with 1 <= k <= n"),
        ("photos#4/3", "part #4/3"),
        ("photos#01/3", "leading zeros: write #1/3"),
        ("#1/2", "names nothing"),
        ("", "names nothing"),
        ("x?split=", "no value"),
    ],
)
def test_bad_references(text: str, message: str) -> None:
    with pytest.raises(BadReference, match=message):
        parse_data_ref(text)
