"""CITATION.cff names this software in this version, and the paper."""

from pathlib import Path

import yaml

import gainfinder

ROOT = Path(__file__).parents[2]


def test_it_cites_this_version_and_the_paper() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited.keys() >= {"cff-version", "message", "title", "authors", "version", "license", "preferred-citation"}
    assert cited["cff-version"] == "1.2.0" and cited["title"] == "gainfinder"
    assert str(cited["version"]) == gainfinder.__version__
    paper = cited["preferred-citation"]
    assert paper["type"] == "conference-paper" and paper["year"] == 2024
    assert paper["title"] == (
        "Fantastic Gains and Where to Find Them: On the Existence and Prospect of General Knowledge Transfer between "
        "Any Pretrained Model"
    )
    assert [author["family-names"] for author in paper["authors"]] == [
        "Roth", "Thede", "Koepke", "Vinyals", "Hénaff", "Akata"
    ]  # fmt: skip
    assert {"type": "other", "value": "arXiv:2310.17653"} in paper["identifiers"]


def test_the_changelog_has_this_version() -> None:
    assert f"\n## {gainfinder.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
