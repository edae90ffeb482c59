"""Where checkpoints come from: folders, and a hub that is a small HTTP server here, asked by the real client."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import pytest

from instructmining.errors import ExportError
from instructmining_export.hub import files_to_fetch, resolve

COMMIT = "a" * 40
MOVED = "b" * 40
CONFIG = b'{"model_type": "llama"}'
PARTS = {"config.json": CONFIG, "tokenizer.json": b"{}"}
LLAMA = PARTS | {"model.safetensors": b"s" * 5000}
TIMEOUT_S = 60


@dataclass
class Repository:
    """What the hub holds under one id."""

    files: dict[str, bytes]
    card: dict[str, object] = field(default_factory=dict)
    commits: list[str] = field(default_factory=lambda: [COMMIT])  # what main is, at each time it is asked for
    refuses_files: tuple[int, str] | None = None  # status and X-Error-Code
    moved_to: str | None = None


class Hub(ThreadingHTTPServer):
    """The part of the hub's API that a download uses."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories: dict[str, Repository] = {}
        self.log: list[str] = []
        self.down: Literal["", "apologises", "hangs up"] = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    """One request."""

    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.log.append(f"{self.command} {path}")
        if path.startswith("/said/"):
            self.answer(200, b"")
        elif self.server.down == "apologises":
            self.answer(503, b"")
        elif self.server.down == "hangs up":
            self.connection.shutdown(socket.SHUT_RDWR)
        elif found := re.fullmatch(r"/api/models/(.+)/revision/(.+)", path):
            self.about(found[1], found[2])
        elif found := re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", path):
            self.file(found[1], found[2], found[3])
        elif found := re.fullmatch(r"/api/models/(.+)/tree/[^/]+", path):  # asked for since version 2 of the client
            self.tree(found[1])
        else:
            self.answer(404, b"", code="EntryNotFound")

    def about(self, identifier: str, revision: str) -> None:
        repository = self.server.repositories.get(identifier)
        if repository is None:
            self.answer(404, b'{"error": "Repository not found"}', code="RepoNotFound")
        elif repository.moved_to:
            self.answer(307, b"", Location=self.path.replace(identifier, repository.moved_to, 1))
        elif revision not in {"main", *repository.commits}:
            self.answer(404, b'{"error": "Invalid rev id"}', code="RevisionNotFound")
        else:
            commits = repository.commits
            commit = revision if revision != "main" else commits.pop(0) if len(commits) > 1 else commits[0]
            sizes = "blobs=" in self.path  # sizes are told only to those who ask
            files = [
                {"rfilename": name, **({"size": len(data)} if sizes else {})} for name, data in repository.files.items()
            ]
            content = {"id": identifier, "sha": commit, "siblings": files, "cardData": repository.card}
            self.answer(200, json.dumps(content).encode(), **{"Content-Type": "application/json"})

    def tree(self, identifier: str) -> None:
        repository = self.server.repositories[identifier]
        if repository.moved_to:
            self.answer(307, b"", Location=self.path.replace(identifier, repository.moved_to, 1))
            return
        files = [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in repository.files.items()
        ]
        self.answer(200, json.dumps(files).encode(), **{"Content-Type": "application/json"})

    def file(self, identifier: str, commit: str, name: str) -> None:
        repository = self.server.repositories[identifier]
        if repository.moved_to:
            self.answer(307, b"", Location=self.path.replace(identifier, repository.moved_to, 1))
        elif repository.refuses_files:
            self.answer(repository.refuses_files[0], b"", code=repository.refuses_files[1])
        else:
            data = repository.files[name]
            etag = f'"{hashlib.sha256(data).hexdigest()}"'
            self.answer(200, data, ETag=etag, **{"X-Repo-Commit": commit})

    def answer(self, status: int, data: bytes, code: str = "", **headers: str) -> None:
        self.send_response(status)
        for name, value in (headers | ({"X-Error-Code": code} if code else {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


# The client reads its settings when it is imported, so each setting has a process; what is reported is also told to
# the hub, so that its log has one order.
CLIENT = """
import json, sys, urllib.parse, urllib.request
from pathlib import Path
from instructmining.errors import ExportError
from instructmining_export.hub import resolve

for line in sys.stdin:
    asked, said = json.loads(line), []

    def report(text):
        said.append(text)
        urllib.request.urlopen(sys.argv[1] + "/said/" + urllib.parse.quote(text)).close()

    try:
        found = resolve(report=report, **asked)
        files = [file.relative_to(found.folder).as_posix() for file in found.folder.rglob("*") if file.is_file()]
        answer = {"folder": str(found.folder), "files": sorted(files), "source": found.source, "error": ""}
    except ExportError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer | {"said": said}), flush=True)
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join(TIMEOUT_S)


class Client:
    """A process that resolves what it is asked to, under settings of its own."""

    def __init__(self, hub: Hub, settings: dict[str, str]) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, hub.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean | settings,
        )

    def __call__(self, identifier: str, **options: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"identifier": identifier, **options}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def stop(self) -> None:
        with self._process:
            self._process.kill()


@pytest.fixture(scope="module")
def clients(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Client]]:
    """Clients that share one cache; all are started at once, since loading torch is most of what they do."""
    settings = {"HF_HOME": str(tmp_path_factory.mktemp("home")), "HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1"}
    settings |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    settings |= {"OMP_NUM_THREADS": "1"}
    started = {"online": Client(hub, settings), "offline": Client(hub, settings | {"HF_HUB_OFFLINE": "1"})}
    yield started
    for client in started.values():
        client.stop()


@pytest.fixture(scope="module")
def online(clients: dict[str, Client]) -> Client:
    return clients["online"]


@pytest.fixture(scope="module")
def offline(clients: dict[str, Client]) -> Client:
    return clients["offline"]


@pytest.fixture
def down(hub: Hub) -> Iterator[Callable[[Literal["apologises", "hangs up"]], None]]:
    """Takes the hub down until the end of the test."""

    def down(how: Literal["apologises", "hangs up"]) -> None:
        hub.down = how

    yield down
    hub.down = ""


# The hub


def test_safetensors_are_taken_and_nothing_else_of_the_weights(hub: Hub, online: Client) -> None:
    others = ("pytorch_model.bin", "consolidated.safetensors", "flax_model.msgpack", "tf_model.h5", "model.Q4.gguf")
    unread = dict.fromkeys((*others, "onnx/model.onnx", "original/model.safetensors", "modeling.py"), b"x")
    wanted = LLAMA | {"tokenizer_config.json": b"{}", "chat_template.jinja": b"", "1_Pooling/config.json": b"{}"}
    hub.repositories["tests/both"] = Repository(wanted | unread, {"license": "apache-2.0"})
    found = online("tests/both")
    assert found["files"] == sorted(wanted)
    assert found["source"] == {"id": "tests/both", "revision": COMMIT, "licence": "apache-2.0"}
    assert Path(found["folder"]).joinpath("model.safetensors").read_bytes() == LLAMA["model.safetensors"]


def test_pickles_are_taken_where_there_are_no_safetensors(hub: Hub, online: Client) -> None:
    shards = {f"pytorch_model-0000{i}-of-00002.bin": b"x" for i in (1, 2)} | {"pytorch_model.bin.index.json": b"{}"}
    hub.repositories["tests/pickled"] = Repository(PARTS | shards)
    found = online("tests/pickled")
    assert found["files"] == sorted(PARTS | shards)
    assert found["source"]["licence"] == "not stated"


def test_size_and_licence_are_said_before_the_first_file_is_fetched(hub: Hub, online: Client) -> None:
    hub.repositories["tests/said"] = Repository(
        LLAMA | {"README.md": b"x" * 9000}, {"license": "other", "license_name": "custom"}
    )
    hub.log.clear()
    message = f"tests/said at {COMMIT}: 14.0 kB, licence other (custom); downloading"
    assert online("tests/said")["said"] == [message]
    assert f"GET /said/{message}" in hub.log
    fetched = [line for line in hub.log if "/resolve/" in line]
    assert fetched
    assert hub.log.index(f"GET /said/{message}") < hub.log.index(fetched[0])


def test_what_is_in_the_cache_is_not_downloaded_again(hub: Hub, online: Client) -> None:
    hub.repositories["tests/twice"] = Repository(LLAMA)
    first = online("tests/twice")
    hub.log.clear()
    second = online("tests/twice")
    assert second["folder"] == first["folder"]
    assert second["said"][0].endswith("downloaded before")
    assert not [line for line in hub.log if "/resolve/" in line]


def test_a_model_that_was_renamed_is_recorded_under_its_name_of_today(hub: Hub, online: Client) -> None:
    hub.repositories["gpt2"] = Repository({}, moved_to="tests/gpt2")
    hub.repositories["tests/gpt2"] = Repository(LLAMA, {"license": "mit"})
    found = online("gpt2")
    assert found["source"] == {"id": "tests/gpt2", "revision": COMMIT, "licence": "mit"}


def test_the_commit_that_was_announced_is_taken_though_the_branch_moves(hub: Hub, online: Client) -> None:
    hub.repositories["tests/moving"] = Repository(LLAMA, commits=[COMMIT, MOVED, COMMIT])
    found = online("tests/moving")
    assert Path(found["folder"]).name == COMMIT
    assert found["source"]["revision"] == COMMIT


def test_a_licence_that_the_user_states_is_recorded(hub: Hub, online: Client) -> None:
    hub.repositories["tests/licence"] = Repository(LLAMA, {"license": "unknown"})
    assert online("tests/licence", licence="bought")["source"]["licence"] == "bought"


def test_code_that_the_config_names_is_neither_fetched_nor_run(hub: Hub, online: Client) -> None:
    config = b'{"auto_map": {"AutoModel": "modeling.Model"}}'
    hub.repositories["tests/code"] = Repository(LLAMA | {"config.json": config, "modeling.py": b"raise SystemExit"})
    found = online("tests/code")
    assert "modeling.py" not in found["files"]
    assert found["said"][-1] == "tests/code: its config names Python code (auto_map); it is not run"


def test_an_unknown_model_is_an_error_that_speaks_of_folder_and_model(online: Client) -> None:
    error = online("tests/unknown")["error"]
    assert error.startswith("tests/unknown: no such folder here and no such model on the hub")
    assert "\n" not in error


def test_an_unknown_revision_is_named(hub: Hub, online: Client) -> None:
    hub.repositories["tests/dated"] = Repository(LLAMA)
    assert online("tests/dated", revision="v9")["error"].startswith("tests/dated: no revision 'v9'")
    assert online("tests/dated", revision=COMMIT)["source"]["revision"] == COMMIT


@pytest.mark.parametrize(("status", "code"), [(401, "GatedRepo"), (403, "GatedRepo"), (403, "")])
def test_a_gated_model_says_how_to_log_in(hub: Hub, online: Client, status: int, code: str) -> None:
    identifier = f"tests/gated-{status}{code}"
    hub.repositories[identifier] = Repository(LLAMA, refuses_files=(status, code))
    error = online(identifier)["error"]
    assert error.startswith(f"{identifier}: access is refused; accept its terms at {hub.url}/{identifier}")
    assert "HF_TOKEN" in error
    assert "\n" not in error


def test_a_download_that_breaks_off_says_why_and_what_to_do(hub: Hub, online: Client) -> None:
    hub.repositories["tests/broken"] = Repository(LLAMA, refuses_files=(500, ""))
    error = online("tests/broken")["error"]
    assert re.match(r"tests/broken at main: the hub at .* does not answer \(.*500 .*; on a machine with network", error)
    assert "\n" not in error


def test_a_cache_that_cannot_be_written_is_not_a_hub_that_cannot_be_reached(hub: Hub, online: Client) -> None:
    hub.repositories["tests/blocked"] = hub.repositories["tests/free"] = Repository(LLAMA)
    cache = Path(online("tests/free")["folder"]).parents[2]
    (cache / "models--tests--blocked").write_bytes(b"")
    assert re.match(
        r"tests/blocked: cannot be stored \(.*\); HF_HOME names another place", online("tests/blocked")["error"]
    )


def test_a_repository_without_weights_we_read_is_refused_before_any_download(hub: Hub, online: Client) -> None:
    hub.repositories["tests/gguf"] = Repository(PARTS | {"model.Q4.gguf": b"x"})
    found = online("tests/gguf")
    assert (
        "found config.json, model.Q4.gguf, tokenizer.json; wanted config.json and model.safetensors" in found["error"]
    )
    assert found["said"] == []


def test_without_network_the_error_says_what_to_download_and_where_it_goes(
    online: Client, down: Callable[[str], None]
) -> None:
    down("hangs up")
    error = online("tests/never")["error"]
    assert re.match(
        r"tests/never at main: the hub at http\S+ cannot be reached or does not answer .*([Cc]onnect)", error
    )
    assert "download config.json, the tokenizer files" in error
    assert "put them into a folder, and give the folder in place of the id" in error
    assert "\n" not in error


def test_a_hub_that_is_down_is_not_a_missing_model(online: Client, down: Callable[[str], None]) -> None:
    down("apologises")
    assert "503" in online("tests/down")["error"]


@pytest.mark.parametrize("how", ["apologises", "hangs up"])
def test_without_the_hub_what_was_downloaded_before_is_taken_and_that_is_said(
    hub: Hub, online: Client, down: Callable[[str], None], how: str
) -> None:
    hub.repositories["tests/kept"] = Repository(LLAMA, {"license": "mit"})
    first = online("tests/kept")
    down(how)
    found = online("tests/kept")
    assert found["folder"] == first["folder"]
    assert found["source"]["revision"] == COMMIT
    assert re.match(rf"tests/kept at {COMMIT}: the hub at .*; using what was downloaded before", found["said"][0])


def test_offline_what_was_downloaded_before_is_taken_and_that_is_said(
    hub: Hub, online: Client, offline: Client
) -> None:
    hub.repositories["tests/offline"] = Repository(LLAMA)
    first = online("tests/offline")
    hub.log.clear()
    found = offline("tests/offline")
    assert found["folder"] == first["folder"]
    assert found["source"]["revision"] == COMMIT
    said = f"tests/offline at {COMMIT}: HF_HUB_OFFLINE is set; using what was downloaded before"
    assert found["said"] == [said]
    assert hub.log == [f"GET /said/{said}"]


def test_offline_and_never_downloaded_is_an_error(offline: Client) -> None:
    assert offline("tests/new")["error"].startswith(
        "tests/new at main: HF_HUB_OFFLINE is set; on a machine with network"
    )


def test_half_a_snapshot_in_the_cache_is_an_error(hub: Hub, online: Client, offline: Client) -> None:
    hub.repositories["tests/half"] = Repository(LLAMA)
    Path(online("tests/half")["folder"], "model.safetensors").unlink()
    assert "no .safetensors file" in offline("tests/half")["error"]


# Which files


def test_all_shards_are_fetched_and_no_variants() -> None:
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    variants = ["model.fp16-00001-of-00001.safetensors", "model.fp16.safetensors", "model-00001-of-00002.bin"]
    index = "model.safetensors.index.json"
    assert files_to_fetch([*shards, *variants, index, "adapter_model.safetensors"]) == [*shards, index]


def test_slow_tokenizers_and_sentence_settings_are_fetched() -> None:
    text = ["spm.model", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "vocab.txt", "vocab.json"]
    text += ["merges.txt", "added_tokens.json", "special_tokens_map.json", "modules.json", "2_Dense/config.json"]
    text += ["sentence_bert_config.json", "config_sentence_transformers.json", "additional_chat_templates/tool.jinja"]
    unread = ["2_Dense/model.safetensors", "onnx/tokenizer.json", "training_args.bin", "optimizer.pt", "eval.json"]
    assert files_to_fetch(text + unread) == sorted(text)


# Folders


def folder(path: Path, card: str | None = None, weights: bytes = b"w" * 100, **config: object) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (path / "model.safetensors").write_bytes(weights)
    if card is not None:
        (path / "README.md").write_text(card, encoding="utf-8")
    return path


def taken(path: Path, **options: str) -> dict[str, str]:
    return resolve(str(path), report=lambda _: None, **options).source


def test_a_folder_is_named_by_itself_or_by_the_model_its_config_names(tmp_path: Path) -> None:
    assert taken(folder(tmp_path / "mine"))["id"] == "mine"
    assert taken(folder(tmp_path / "tuned", _name_or_path="owner/name"))["id"] == "owner/name"
    assert taken(folder(tmp_path / "moved", _name_or_path="/home/someone/model"))["id"] == "moved"


def test_a_folder_says_its_size_and_licence(tmp_path: Path) -> None:
    path = folder(tmp_path / "mine", card="---\nlanguage: en\nlicense: mit  # ours\n---\nlicense: no\n")
    said: list[str] = []
    source = resolve(str(path), report=said.append).source
    assert source["revision"] == "local"
    assert said == [f"{path}: a folder, 100 bytes of weights, licence mit"]


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        (None, "not stated"),
        ("license: mit\n", "not stated"),
        ("---\nlicense:\nlanguage: en\n---\n", "not stated"),
        ('---\nlicense: "apache-2.0"\n---\n', "apache-2.0"),
        ("---\nlicense:\n- cc-by-4.0\n---\n", "cc-by-4.0"),
        ("---\nlicense_name: llama3\nlicense: other\n---\n", "other (llama3)"),
    ],
)
def test_the_licence_is_that_of_the_model_card(tmp_path: Path, card: str | None, licence: str) -> None:
    assert taken(folder(tmp_path / "mine", card))["licence"] == licence
    assert taken(tmp_path / "mine", licence="bought")["licence"] == "bought"


def test_the_digest_tells_weights_of_one_size_apart(tmp_path: Path) -> None:
    one, same, other = (
        taken(folder(tmp_path / name, weights=content))["digest"]
        for name, content in (("a", b"1" * 9), ("b", b"1" * 9), ("c", b"2" * 9))
    )
    assert one == same != other


def test_a_folder_in_the_hubs_cache_keeps_its_id_and_commit(tmp_path: Path) -> None:
    source = taken(folder(tmp_path / "models--owner--some-name" / "snapshots" / COMMIT))
    assert (source["id"], source["revision"]) == ("owner/some-name", COMMIT)


@pytest.mark.parametrize("typo", ["./nothing/here", "/nothing", "~/nothing", "a/b/c", "with space", ""])
def test_a_path_that_is_not_there_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typo: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match="no such folder"):
        resolve(typo, report=lambda _: None)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"")
    with pytest.raises(ExportError, match=r"model\.gguf: is a file; wanted a folder"):
        resolve(str(tmp_path / "model.gguf"), report=lambda _: None)


def test_a_folder_without_weights_is_an_error(tmp_path: Path) -> None:
    (folder(tmp_path / "mine") / "model.safetensors").unlink()
    with pytest.raises(ExportError, match=r"mine: no \.safetensors file"):
        taken(tmp_path / "mine")
