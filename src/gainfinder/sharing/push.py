"""A student goes to a model hub, in one commit; nothing that is there is replaced unless that is asked for."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from ..errors import GainfinderError, HubError, SettingsError
from ..libraries import first_line, hub_or_cache, quiet
from ..predictions import IMAGE
from ..report import is_own_card
from ..results import CARD_FILE
from .bundle import Bundle, make_bundle

ALWAYS_THERE = {".gitattributes"}
"""What the hub puts into a new repository."""
_LOGGERS = ("huggingface_hub", "httpx")
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_REPOSITORY = re.compile(rf"{_PART}/{_PART}")


@dataclass(frozen=True, kw_only=True)
class PushedStudent:
    """What went to a hub, or would.

    Attributes:
        repository: `USER/NAME`.
        url: the repository's page.
        commit: hash of the commit; None of a trial that sent nothing.
        library: `timm` or `transformers`, which loads it.
        reference: the reference that loads it here.
        files: bytes of each file, by its name.
        own_card: whether the card is one that somebody wrote or changed, and went along as it is.
        noun: what a sample of it is: `image` or `text`.
        classified: what it gives a class: the sample, or each `word`, `token` or `cell`.
    """

    repository: str
    url: str
    commit: str | None
    library: str
    reference: str
    files: dict[str, int]
    own_card: bool
    noun: str = IMAGE
    classified: str = IMAGE


def push_student(
    folder: str | Path,
    repository: str,
    *,
    private: bool = False,
    replace: bool = False,
    dry_run: bool = False,
    message: str | None = None,
) -> PushedStudent:
    """Put the student of a result on the Hugging Face hub: weights, configuration and model card, in one commit.

    Plain timm (`timm.create_model("hf-hub:USER/NAME", pretrained=True)`) or transformers load it from there. Report,
    predictions and pictures stay here. The token is the one that `hf auth login` keeps, or `HF_TOKEN`; the hub is the
    one that `HF_ENDPOINT` names, where that is set.

    Args:
        folder: result folder of a finished transfer, whose student is of timm or transformers.
        repository: `USER/NAME`; it is made where it is not there.
        private: whether a new repository is private; one that is there stays what it is.
        replace: whether files that others wrote may be replaced there; those of other names stay.
        dry_run: whether nothing is sent, and no hub is asked.
        message: the commit's message.

    Raises:
        SettingsError: no name of a repository, or no token.
        RunFolderError: the folder holds no finished transfer.
        ModelError: neither timm nor transformers alone could load the student.
        HubError: the hub cannot be reached or refuses, or the repository holds something else.
    """
    _check_name(repository)
    bundle = make_bundle(Path(folder), repository=repository)
    commit = None if dry_run else _send(bundle, repository, private=private, replace=replace, message=message)
    return PushedStudent(
        repository=repository,
        url=f"{constants.ENDPOINT}/{repository}",
        commit=commit,
        library=bundle.library,
        reference=f"{'hf-hub' if bundle.library == 'timm' else 'hf'}:{repository}",
        files=bundle.sizes,
        own_card=bundle.own_card,
        noun=bundle.noun,
        classified=bundle.classified,
    )


def _check_name(repository: str) -> None:
    if _REPOSITORY.fullmatch(repository) is None or "--" in repository or ".." in repository:
        raise SettingsError(
            f"{repository!r} is no name of a repository: expected USER/NAME, each of letters, digits, - _ and . (not "
            "first or last, no -- and no ..), 96 characters at most"
        )


def _send(bundle: Bundle, repository: str, *, private: bool, replace: bool, message: str | None) -> str:
    token = get_token()
    if token is None:
        raise SettingsError("there is no token of the hub: log in with `hf auth login`, or set HF_TOKEN")
    with quiet(*_LOGGERS), hub_or_cache() as reachable:
        if not reachable:
            raise HubError(
                f"the hub at {constants.ENDPOINT} cannot be reached (or HF_HUB_OFFLINE is set); nothing was sent"
            )
        api = HfApi(token=token, library_name="gainfinder")
        try:
            parent = _parent(api, bundle, repository, replace=replace)
            if parent is None:
                api.create_repo(repository, private=private, exist_ok=True)
            found: Any = api.create_commit(
                repository,
                [
                    CommitOperationAdd(name, one if isinstance(one, bytes) else str(one))
                    for name, one in bundle.files.items()
                ],
                commit_message=message or "A student and its model card, by gainfinder",
                parent_commit=parent,
            )
        except GainfinderError:
            raise
        except Exception as error:  # each version of the client has exceptions of its own
            raise HubError(f"{repository}: {_reason(error)}") from error
    return str(found.oid)


def _parent(api: HfApi, bundle: Bundle, repository: str, *, replace: bool) -> str | None:
    """The commit that the repository is at; None where there is no repository.

    Raises:
        HubError: it holds what gainfinder did not write, and `replace` is not given.
    """
    try:
        info = api.model_info(repository)
    except RepositoryNotFoundError:
        return None
    there = {one.rfilename for one in info.siblings or ()} - ALWAYS_THERE
    if there and not replace and not _is_ours(api, repository, there, revision=info.sha):
        named = ", ".join(sorted(there & {*bundle.files}) or sorted(there)[:3])
        raise HubError(
            f"{repository}: holds {len(there)} file(s) that gainfinder did not write, or that were changed since "
            f"({named}); nothing was sent. Give another name, or `replace=True` to put these files in their place"
        )
    return info.sha


def _is_ours(api: HfApi, repository: str, there: set[str], *, revision: str | None) -> bool:
    """Whether the repository has a card that gainfinder wrote and nobody has changed."""
    if CARD_FILE not in there:
        return False
    return is_own_card(Path(api.hf_hub_download(repository, CARD_FILE, revision=revision)))


def _reason(error: Exception) -> str:
    causes = [error]
    while causes[-1].__cause__ is not None and isinstance(causes[-1].__cause__, Exception):
        causes.append(causes[-1].__cause__)
    answer = next((one for one in causes if isinstance(one, HfHubHTTPError)), causes[-1])
    status = getattr(getattr(answer, "response", None), "status_code", None)
    if status in (401, 403):
        return (
            f"the hub refuses this token (status {status}): expected one that may write there; log in with "
            "`hf auth login`, or set HF_TOKEN"
        )
    if status == 412:
        return "the repository was changed meanwhile; nothing was sent: give the same command again"
    text = getattr(answer, "server_message", None)
    return f"the hub did not take it: {text or first_line(answer)}"
