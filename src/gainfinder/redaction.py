"""Secrets that a command line, a reference or an error may hold, taken out before anything is shown or written.

In one place: whatever becomes a message, a log, a file of results or a page goes through `redacted`.
"""

import logging
import os
import re

HIDDEN = "***"
SECRET_VARIABLES = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|PRIVATE_KEY)(_ID)?$")
"""Names of environment variables whose values are secrets, such as HF_TOKEN and AWS_SECRET_ACCESS_KEY."""
SHORTEST = 8
"""Characters of a variable's value that is looked for: a shorter one may be a word of any text."""

_WORD = r"(?:token|secret|passw(?:or)?d|pwd|api_?key|access_?key|private_?key|signature|credential)"
_PLACES = (
    # scheme://user:password@host; taken for a path it has a single slash
    re.compile(r"(?P<before>://|\b(?:https?|s3a?|gc?s|s?ftp|ssh|abfss?|az|hdfs|hf|webdavs?):/)[^/\s'\"]+(?=@)"),
    # ?token=…
    re.compile(rf"(?P<before>{_WORD}[\w-]{{0,40}}=[\"']?)[^\s&\"',;)}}\]]+", re.IGNORECASE),
    # --token …
    re.compile(rf"(?P<before>--[\w-]{{0,40}}{_WORD}[\w-]{{0,40}}\s+)[^\s-]\S*", re.IGNORECASE),
    # {"token": "…"}
    re.compile(rf"(?P<before>{_WORD}[\w-]{{0,40}}[\"']\s*:\s*[\"'])[^\"']+", re.IGNORECASE),
    re.compile(r"(?P<before>\bBearer )\S+", re.IGNORECASE),
    re.compile(r"(?P<before>)\b(?:hf_[A-Za-z0-9]{16,}|(?:AKIA|ASIA)[A-Z0-9]{16})\b"),
)
"""What tells a secret, and the secret behind it; each is looked for in time in proportion to the text."""


def redacted(text: str) -> str:
    """A text with `***` in place of user names and passwords of URLs, tokens, and the values of secret variables.

    >>> redacted("--mirror s3://key:secret@bucket/study")
    '--mirror s3://***@bucket/study'
    >>> redacted("hfds/org/set?token=abcdef&split=train")
    'hfds/org/set?token=***&split=train'
    """
    for place in _PLACES:
        text = place.sub(rf"\g<before>{HIDDEN}", text)
    for name, value in os.environ.items():
        if len(value) >= SHORTEST and value in text and SECRET_VARIABLES.search(name.upper()):
            text = text.replace(value, HIDDEN)
    return text


class RedactedFormatter(logging.Formatter):
    """Formats the records of a log without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's line."""
        return redacted(super().format(record))
