"""A share of `campaigns/fuzz_settings.py`, and properties of what users type: read back, or refused in a line."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gainfinder.config import SETTINGS, TransferConfig
from gainfinder.data import parse_data_ref
from gainfinder.errors import GainfinderError
from gainfinder.models.preprocessing import LONGEST_EDGE_PX, MOST_CLASSES, Preprocessing
from gainfinder.models.reference import parse_model_ref

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    path = Path(__file__).parent / "campaigns" / "fuzz_settings.py"
    spec = importlib.util.spec_from_file_location("fuzz_settings", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("kind", "runs"),
    [
        ("model_reference", 200), ("data_reference", 100), ("settings", 200), ("specification", 60),
        ("study_file", 100), ("label_map", 60), ("class_list", 60), ("result_files", 120), ("notes", 5),
        ("command_line", 6),
    ],
)  # fmt: skip
def test_nothing_hostile_is_a_traceback(fuzz: ModuleType, kind: str, runs: int) -> None:
    counts, mistakes = fuzz.campaign(runs, only=kind)
    assert not mistakes, mistakes[0]
    assert counts[kind, "accepted"] + counts[kind, "refused"] == runs


@settings(max_examples=150, deadline=None)
@given(st.text())
def test_a_reference_prints_back_or_is_refused_in_one_line(text: str) -> None:
    for parse in (parse_model_ref, parse_data_ref):
        try:
            assert str(parse(text)) == text
        except GainfinderError as error:
            assert len(str(error).splitlines()) == 1


@settings(max_examples=100, deadline=None)
@given(st.integers(), st.integers())
def test_sizes_are_taken_within_their_range_alone(height: int, width: int) -> None:
    fits = all(1 <= edge <= LONGEST_EDGE_PX for edge in (height, width))
    try:
        ref = parse_model_ref(f"resnet18?size={height}x{width}")
    except GainfinderError as error:
        assert not fits and f"size={height}x{width}" in str(error) and "from 1 to 4096" in str(error)
    else:
        made = Preprocessing(input_size=(3, 8, 8)).with_overrides(ref.query, reference="r")
        assert fits and made.view_size == (height, width)


@settings(max_examples=100, deadline=None)
@given(st.integers(-3, 2 * MOST_CLASSES))
def test_numbers_of_classes_are_taken_within_their_range_alone(count: int) -> None:
    try:
        assert parse_model_ref(f"table:a.csv?num_classes={count}").setting("num_classes") == str(count)
    except GainfinderError:
        assert not 1 <= count <= MOST_CLASSES
    else:
        assert 1 <= count <= MOST_CLASSES


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([one.name for one in SETTINGS]), JSON)
def test_a_setting_is_taken_and_read_back_or_refused_in_one_line(name: str, value: Any) -> None:
    given_settings: dict[str, Any] = {name: value}
    try:
        config = TransferConfig(**given_settings)
    except GainfinderError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert TransferConfig.model_validate_json(config.model_dump_json()) == config
