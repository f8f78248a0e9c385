from pathlib import Path

import pytest

from gainfinder.study import StudyFolder, read_study
from studies import SMALL


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """A study of six cells whose models are nowhere: for those who take cells, and run none."""
    (tmp_path / "small.toml").write_text(SMALL, encoding="utf-8")
    found = StudyFolder(tmp_path / "out")
    found.claim(read_study(tmp_path / "small.toml"))
    return found
