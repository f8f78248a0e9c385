"""A small share of tests/campaigns/fuzz_data.py: whatever a user hands over is read or refused in one line."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gainfinder.data import parse_data_ref
from gainfinder.errors import BadReference
from hostile import Case, make_case, read


@pytest.mark.parametrize("number", range(30))
def test_hostile_sources_are_read_or_refused_in_one_line(tmp_path: Path, number: int) -> None:
    outcome, text = read(make_case(f"suite/{number}", tmp_path))
    assert outcome in ("read", "refused"), text


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_characters="/~."), max_size=400))
def test_any_text_is_a_reference_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    outcome, said = read(Case("reference", text))
    assert outcome == "refused" or text.startswith("digits"), said
    assert not list(tmp_path.iterdir())


@settings(deadline=None)
@given(text=st.text(st.sampled_from("digs#/?=&12٣~@ \0"), max_size=60))
def test_what_parses_prints_back(text: str) -> None:
    try:
        ref = parse_data_ref(text)
    except BadReference as error:
        assert "\n" not in str(error)
    else:
        assert str(ref) == text
