"""A stand-in for the Hugging Face hub: the few addresses that its client asks to make, fill and read a repository.

Repositories live in memory. Files go through the client's own code: those that the hub would store as large files by
the LFS protocol, the others within the commit.
"""

import base64
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from huggingface_hub import constants

TOKEN = "hf_standInForAToken"
LARGE = (".safetensors", ".bin", ".onnx")


@dataclass
class Hub:
    """What the server holds.

    Attributes:
        repositories: files by name, of each repository.
        commits: for each commit its repository, message and the names of its files.
        private: repositories that were made private.
        large: contents by their SHA-256, as they were uploaded.
        cards: front matters that the client asked to validate.
        failing: status that the next commit is answered with, once; None to take it.
    """

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: list[tuple[str, str, list[str]]] = field(default_factory=list)
    private: set[str] = field(default_factory=set)
    large: dict[str, bytes] = field(default_factory=dict)
    cards: list[str] = field(default_factory=list)
    failing: int | None = None

    def sha(self, repository: str) -> str:
        """The commit that a repository is at: a hash of its files."""
        content = repr(sorted(self.repositories[repository].items())).encode()
        return hashlib.sha1(content).hexdigest()


@contextmanager
def serving(cache: Path) -> Iterator[Hub]:
    """A hub that the client of this process asks within the block, by a token of its own and with an empty cache."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        patch.setenv("HF_HUB_DISABLE_XET", "1")
        patch.setenv("HF_TOKEN", TOKEN)
        patch.setenv("NO_PROXY", "127.0.0.1")
        _forget_address()
        try:
            yield hub
        finally:
            _forget_address()
            server.shutdown()
            server.server_close()


def _forget_address() -> None:
    """transformers keeps its first client with the address of then, and would ask a hub that is gone for a while."""
    if (module := sys.modules.get("transformers.utils.hub")) is not None:
        vars(module)["_hf_api"] = None


class _Handler(BaseHTTPRequestHandler):
    """Answers for one hub."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/":
            self._json({})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path):
            self._about(found[1])
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path):
            files = self.hub.repositories.get(found[1], {})
            self._json([{"type": "file", "path": name, "size": len(one), "oid": "0"} for name, one in files.items()])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self._file(found[1], found[2])
        else:
            self._missing("EntryNotFound")

    def do_PUT(self) -> None:
        content = self._body()
        self.hub.large[hashlib.sha256(content).hexdigest()] = content
        self._json({})

    def do_POST(self) -> None:
        path, body = self.path.partition("?")[0], self._body()
        if path == "/api/validate-yaml":
            self.hub.cards.append(json.loads(body)["content"])
            self._json({"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._json({"error": "Invalid username or password."}, status=401)
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif re.fullmatch(r"/api/models/[^/]+/[^/]+/preupload/main", path):
            files = [one["path"] for one in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(LARGE) else "regular" for name in files}
            told = [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]
            self._json({"files": told})
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.url}/upload/{one['oid']}", "header": {}}}}
                for one in json.loads(body)["objects"]
            ]
            self._json({"transfer": "basic", "objects": objects})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            self._commit(found[1], [json.loads(line) for line in body.splitlines()])
        else:
            self._missing("EntryNotFound")

    def _create(self, asked: dict[str, Any]) -> None:
        repository = f"{asked['organization']}/{asked['name']}"
        if repository in self.hub.repositories:
            self._json({"error": "You already created this model repo"}, status=409)
            return
        self.hub.repositories[repository] = {".gitattributes": b"*.safetensors filter=lfs\n"}
        if asked.get("private") or asked.get("visibility") == "private":
            self.hub.private.add(repository)
        self._json({"url": f"{self.hub.url}/{repository}"})

    def _commit(self, repository: str, lines: list[dict[str, Any]]) -> None:
        if self.hub.failing is not None:
            status, self.hub.failing = self.hub.failing, None
            self._json({"error": "it is full"}, status=status)
            return
        head = next(line["value"] for line in lines if line["key"] == "header")
        if head.get("parentCommit") not in (None, self.hub.sha(repository)):
            self._json({"error": "A commit has happened since."}, status=412)
            return
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
        self.hub.repositories[repository].update(files)
        self.hub.commits.append((repository, head["summary"], sorted(files)))
        oid = self.hub.sha(repository)
        self._json({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{repository}/commit/{oid}"})

    def _about(self, repository: str) -> None:
        if repository not in self.hub.repositories:
            self._missing("RepoNotFound")
            return
        names = [{"rfilename": name} for name in self.hub.repositories[repository]]
        private = repository in self.hub.private
        about = {"id": repository, "modelId": repository, "sha": self.hub.sha(repository), "private": private}
        self._json({**about, "siblings": names, "tags": [], "downloads": 0, "likes": 0})

    def _file(self, repository: str, name: str) -> None:
        files = self.hub.repositories.get(repository)
        if files is None or name not in files:
            self._missing("RepoNotFound" if files is None else "EntryNotFound")
            return
        content = files[name]
        self._send(
            content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": self.hub.sha(repository)}
        )

    def _missing(self, code: str) -> None:
        self._json({"error": "not found"}, status=404, headers={"X-Error-Code": code})

    def _json(self, value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})}, status=status)

    def _send(self, content: bytes, headers: dict[str, str], *, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().strip(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)
