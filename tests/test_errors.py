"""Messages as they are shown: of one line, of a length to be read, without secrets."""

import logging
import pickle

import pytest

from gainfinder.errors import LONGEST_MESSAGE, BadReference, BrokenSample, readable
from gainfinder.redaction import RedactedFormatter, redacted


def test_long_words_and_messages_show_their_ends() -> None:
    message = str(BadReference(f"num_classes={'1' * 5000} in 'x' cannot be used: expected a number"))
    assert len(message) < 400 and message.endswith("in 'x' cannot be used: expected a number")
    assert "num_classes=111" in message and "5,012 characters" in message
    assert len(readable("a b " * 10_000)) <= LONGEST_MESSAGE
    path = "/data/" + "x" * 200
    assert readable(path) == path, "a path of this length is to be copied"


def test_what_would_steer_a_terminal_is_escaped() -> None:
    assert readable("a\nb\x1b[2J\u202ec\ud800") == "a b\\x1b[2J\\u202ec\\ud800"


def test_an_error_is_sent_between_processes_with_its_message() -> None:
    error = pickle.loads(pickle.dumps(BrokenSample("a.png", "cut off")))
    assert str(error) == "a.png: cut off" and (error.where, error.reason) == ("a.png", "cut off")


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("cannot read https://me:pa55word@host/data.tar", "pa55word"),
        ("https:/me:pa55word@host/data.tar does not exist", "pa55word"),
        ("gainfinder study run --mirror s3://KEYKEY:s3cr3t@bucket/x", "s3cr3t"),
        ("hfds/org/set?token=abcdef123&split=train", "abcdef123"),
        ("--hf-token abcdef123 --out x", "abcdef123"),
        ('{"hf_token": "abcdef123"}', "abcdef123"),
        ("401 for hf_abcdefghijklmnopqrstuvwx", "hf_abcdef"),
        ("Authorization: Bearer abcdef123", "abcdef123"),
        ("https://b.s3.amazonaws.com/x?X-Amz-Signature=abcdef123", "abcdef123"),
        ("key AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
    ],
)
def test_secrets_are_left_out(text: str, secret: str) -> None:
    assert secret in text and secret not in redacted(text) and "***" in redacted(text)
    assert redacted(redacted(text)) == redacted(text)
    assert secret not in str(BadReference(text))


def test_values_of_secret_variables_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "my-own-value")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other/value")
    monkeypatch.setenv("MODE_TOKEN", "cpu")
    text = "my-own-value and other/value on cpu"
    assert redacted(text) == "*** and *** on cpu"
    record = logging.LogRecord("gainfinder", logging.INFO, "", 0, "got %s", ("my-own-value",), None)
    assert RedactedFormatter("%(message)s").format(record) == "got ***"


@pytest.mark.parametrize(
    "text",
    [
        "hf-hub:timm/resnet18.a1_in1k@main",
        "file:nets.py:resnet20@run@2/w.pt?size=32x48&classes=@names.txt",
        "hfds/a/b?split=train&input_key=image&target_key=label#1/2",
        "tokens: 5 positions; expected key=value, write token",
        "https://docs.example.org/page?size=3",
        "s3://bucket/study",
        "file:/nets.py:resnet20@/w.pt and C:/w@2.pt",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text
