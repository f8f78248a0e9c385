"""A study's file is read, and a mistake in it is told with its line and the nearest right key."""

import os
from pathlib import Path

import pytest

from gainfinder.errors import SettingsError
from gainfinder.study import StudyDocument, read_study
from studies import SMALL


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL, encoding="utf-8")
    return path


def line(text: str) -> int:
    return SMALL.splitlines().index(text) + 1


def test_names_and_placeholders_become_references(file: Path) -> None:
    study = read_study(file, ["paths.zoo=/models"])
    assert study.study.name == "small"
    assert study.reference("vit") == "local-dir:/models/vit"
    assert study.reference("resnet18.a1_in1k") == "resnet18.a1_in1k"
    assert list(study.data) == ["data"] and study.data["data"].val == "digits#5/16"


def test_overrides_replace_values_and_add_tables(file: Path) -> None:
    study = read_study(
        file,
        ["settings.epochs=3", "axes.seed=[0, 1]", 'models."a.b"=timm-name', "study.name=other", "study.bank=false"],
    )
    assert study.settings["epochs"] == 3 and study.axes == {"seed": [0, 1]}
    assert study.models["a.b"].reference == "timm-name"
    assert study.study.name == "other" and not study.study.bank


def test_several_kinds_of_images_have_names(tmp_path: Path) -> None:
    start, end = SMALL.index("[data]"), SMALL.index("[settings]")
    text = SMALL[:start] + '[data.one]\ndata = "digits#1/4"\n[data.two]\ndata = "digits#2/4"\n' + SMALL[end:]
    (tmp_path / "two.toml").write_text(text)
    assert list(read_study(tmp_path / "two.toml").data) == ["one", "two"]


def test_it_goes_to_json_and_back(file: Path) -> None:
    study = read_study(file)
    assert StudyDocument.from_json(study.to_json()) == study


@pytest.mark.parametrize(
    ("old", "new", "where", "message"),
    [
        ("epochs = 2", "epoch = 2", "epoch = 2", "unknown key 'epoch'; near matches: epochs"),
        ("epochs = 2", "epochs = 0", "epochs = 0", "epochs is 0: expected 1 or more"),
        ('method = "kl"', 'method = "kll"', 'method = "kll"', "method 'kll' is unknown; near matches: kl"),
        ("[settings]", "[setings]", "[setings]", "unknown key 'setings'; near matches: settings"),
        ('val = "digits#5/16"', 'vall = "d"', 'vall = "d"', "unknown key 'vall'; near matches: val"),
        (
            'students = ["vit", "resnet"]',
            'students = ["vit", "resnt"]',
            'students = ["vit", "resnt"]',
            "'resnt' is no model of [models]; near matches: resnet",
        ),
        (
            'vit = "local-dir:{zoo}/vit"',
            'vit = "local-dir:{zo}/vit"',
            'vit = "local-dir:{zo}/vit"',
            "has the placeholder {zo}",
        ),
        ('students = ["vit", "resnet"]', "students = []", "students = []", "study.students is []"),
        ("guard = false", "guard = false\n[axes]\nseed = 3", "seed = 3", "expected a list of values"),
        ("guard = false", "guard = false\n[axes]\nseed = [0, 'a']", "seed = [0, 'a']", "seed is 'a'"),
        ("guard = false", "guard = false\n[[only]]\nstudnt = 'vit'", "studnt = 'vit'", "unknown key 'studnt'"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, where: str, message: str) -> None:
    text = SMALL.replace(old, new, 1)
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as error:
        read_study(path)
    number = text.splitlines().index(where) + 1
    assert str(error.value).startswith(f"{path}, line {number}: ") and message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[study", "is no TOML"),
        ("", "has no table [study]"),
        ("[study]\nstudents = ['a']\nteachers = ['b']", "has no table [data]"),
        ("[study]\nstudents = ['a']\n[data]\ndata = 'digits'", "study.teachers is missing"),
    ],
)
def test_a_file_that_is_no_study_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(SettingsError, match=r"a\.toml") as error:
        read_study(tmp_path / "a.toml")
    assert message in str(error.value)


@pytest.mark.parametrize("override", ["epochs", "=3", "a b=1"])
def test_an_override_that_is_none_is_refused(file: Path, override: str) -> None:
    with pytest.raises(SettingsError, match="`set` is"):
        read_study(file, [override])


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read as a study"):
        read_study(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe[\x00", "UTF-16; save it as UTF-8"),
        (b'[study]\nname = "\xe4"', "line 2 is not UTF-8"),
        (b"\x00\x01\x02", "is no TOML"),
        (("a = " + "[" * 100_000 + "]" * 100_000).encode(), "is no TOML: it is nested too deeply"),
        (f"a = {'1' * 5000}".encode(), "is no TOML"),
    ],
)
def test_a_file_that_is_no_study_is_told_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=message) as caught:
        read_study(tmp_path / "a.toml")
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 1000


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, message in (
        (tmp_path / "fifo", "is a FIFO"), (tmp_path, "is a folder"), (tmp_path / "none.toml", "does not exist"),
        ("~nosuchuser/x", "no home folder"), ("a\0b", "null"), ("x" * 5000, "too long"),
    ):  # fmt: skip
        with pytest.raises(SettingsError, match=message):
            read_study(path)


def test_a_byte_order_mark_is_no_part_of_the_study(file: Path) -> None:
    plain = read_study(file)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert read_study(file) == plain


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("settings.epochs=1000000000001", "epochs is 1000000000001: expected 1 or more, and at most 1,000,000,000"),
        (f"settings.epochs={'9' * 30}", "settings.epochs is 999.*: expected a finite number of 64 bits"),
        (f"settings.seed=0x{'f' * 5000}", "settings.seed is a number of more than 4,300 digits: expected a finite"),
        (f"settings.epochs={'9' * 5000}", "epochs is '999.*9': expected a whole number"),
        ("settings.lr=inf", "settings.lr is inf: expected a finite number"),
        ("axes.lr=[nan]", r"axes.lr.0 is nan"),
        (f"paths.a={'[' * 20}{']' * 20}", "is nested more than 16 deep"),
        (f"study.name={'x' * 101}", "study.name is 'xxx.*': expected a name of 1 to 100 characters"),
        ('study.name="a\\nb"', "study.name is"),
        ('study.name=" "', "study.name is ' '"),
        ('data.data="https://me:pa55@host/x.tar"', r"data.data holds a password or token, 'https://\*\*\*@host/x.tar'"),
        ('paths.zoo="x?token=abcdef"', "paths.zoo holds a password or token"),
    ],
)
def test_values_that_no_study_has_are_refused(file: Path, override: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        read_study(file, [override])
    assert len(str(caught.value)) < 1000 and "pa55" not in str(caught.value)
