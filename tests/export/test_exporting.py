from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import small_models

from instructmining import Bundle
from instructmining_export import parity

Command = Callable[..., int]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.causal_model("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.encoder_model("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "cpu_threads", lambda: 1)


def roles(path: Path) -> set[str]:
    return set(Bundle.open(path).roles)


def test_a_role_is_exported_and_another_added(
    run: Command,
    llama: Path,
    bert: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = tmp_path / "bundle"
    assert run("export", "-o", bundle, "--perplexity", llama, "--max-length", 256) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "perplexity: computing reference values with transformers on 200 texts" in said.err
    assert "the gate" in said.err
    assert f"wrote {bundle}" in said.err
    assert run("export", "-o", bundle, "--embedding", bert, "--precision", "int8") == 0
    assert roles(bundle) == {"perplexity", "embedding"}
    opened = Bundle.open(bundle)
    assert (opened.roles["perplexity"].precision, opened.roles["embedding"].precision) == ("fp32", "int8")
    assert opened.roles["perplexity"].cuda_graph == bundle / "perplexity" / "model.cuda.onnx"
    assert run("doctor", "--bundle", bundle, "--device", "cpu") == 0
    shown = capsys.readouterr().out
    assert "perplexity:                 ok: fp32, 200 rows" in shown
    assert "embedding:                  ok: int8, 200 rows" in shown


def test_a_role_that_is_there_needs_overwrite(
    run: Command,
    bert: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = tmp_path / "bundle"
    assert run("export", "-o", bundle, "--embedding", bert) == 0
    before = Bundle.open(bundle).digest
    assert run("export", "-o", bundle, "--embedding", bert) == 1
    assert "has the role embedding already; give --overwrite" in capsys.readouterr().err
    assert Bundle.open(bundle).digest == before
    assert run("export", "-o", bundle, "--embedding", bert, "--overwrite", "--max-length", 64) == 0
    assert Bundle.open(bundle).roles["embedding"].max_length == 64


def test_a_preset_takes_local_folders_in_place_of_its_ids_and_one_role_of_it(
    run: Command,
    bert: Path,
    tmp_path: Path,
) -> None:
    bundle = tmp_path / "bundle"
    assert run("export", "-o", bundle, "--preset", "paper-v1", "--embedding", bert, "--only", "embedding") == 0
    assert Bundle.open(bundle).default_rule == "paper-v1"
    assert roles(bundle) == {"embedding"}
    reward = small_models.encoder_classifier("deberta-v2", tmp_path / "deberta")
    arguments = ("--preset", "paper-v1", "--reward", reward, "--only", "reward", "--max-length", 200)
    assert run("export", "-o", bundle, *arguments) == 0
    assert roles(bundle) == {"embedding", "reward"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to export; give --preset, or a model for a role"),
        (("--preset", "paper-v9"), "--preset: no preset 'paper-v9'; did you mean 'paper-v3'?"),
        (("--embedding", "x", "--precision", "fp8"), "--precision: no precision 'fp8'"),
        (("--embedding", "x", "--via", "onnx"), "--via: no way 'onnx'. There are: auto, own, optimum, transformers"),
        (
            ("--embedding", "x", "--via", "optimum", "--precision", "int8"),
            "--precision int8: graphs made with --via optimum are in fp32",
        ),
        (("--preset", "demo", "--via", "transformers"), "the preset demo is exported as a whole"),
        (("--embedding", "x", "--only", "reward"), "--only: no model given for the role 'reward'"),
        (("--preset", "demo", "--reward", "x"), "the preset demo is exported as a whole"),
        (("--preset", "paper-v1", "--revision", "abc"), "--revision names a commit of one model"),
    ],
)
def test_wrong_usage_is_said(
    run: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    assert run("export", "-o", tmp_path / "bundle", *arguments) == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_one_line(
    run: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("export", "-o", tmp_path / "bundle", "--reward", "./nothing/at/all") == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "no such folder" in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_files_and_their_place_are_said(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from instructmining_cli.main import main; main()"]
    arguments = ["export", "-o", str(tmp_path / "bundle"), "--preset", "paper-v3"]
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run(command + arguments, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "OpenAssistant/oasst-rm-2.1-pythia-1.4b-epoch-2.5" in line
    assert "config.json" in line
    assert "folder" in line
    assert not (tmp_path / "bundle").exists()


def test_the_manifest_says_where_the_model_came_from(
    run: Command,
    bert: Path,
    tmp_path: Path,
) -> None:
    assert run("export", "-o", tmp_path / "bundle", "--embedding", bert) == 0
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_bytes())
    assert manifest["format"] == 3
    source = manifest["roles"]["embedding"]["source"]
    assert source["revision"] == "local"
    assert len(source["digest"]) == 64
    assert source["licence"] == "not stated"


def test_the_model_that_a_folder_holds_can_be_stated(run: Command, bert: Path, tmp_path: Path) -> None:
    assert run("export", "-o", tmp_path / "bundle", "--embedding", f"{bert}=owner/encoder") == 0
    source = Bundle.open(tmp_path / "bundle").roles["embedding"].source
    assert source["id"] == "owner/encoder"
    assert source["id_from"] == "stated at export, not compared with the hub"
    assert source["revision"] == "local"


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_checkpoint_whose_download_broke_off_is_one_line_that_names_the_file(
    run: Command, bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(bert, broken)
    content = (broken / file).read_bytes()
    (broken / file).write_bytes(content[: len(content) // 2])
    assert run("export", "-o", tmp_path / "bundle", "--embedding", broken) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert str(broken) in line
    assert not (tmp_path / "bundle").exists()


def test_a_place_that_cannot_be_written_is_one_line(
    run: Command, bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    assert run("export", "-o", tmp_path / "file" / "bundle", "--embedding", bert) == 1
    assert f"{tmp_path}/file/bundle: Not a directory" in capsys.readouterr().err


def test_what_is_wrong_at_first_sight_is_said_before_pytorch_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv[0] = 'instructmining'\n"
        "from instructmining_cli.main import main\n"
        "try:\n    main()\nfinally:\n    print('torch' in sys.modules)"
    )
    for arguments in (["--precision", "fp9", "--reward", "x"], ["--preset", "v9"], ["--reward", "./nowhere"]):
        command = [sys.executable, "-c", code, "export", "-o", str(tmp_path / "bundle"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode in {1, 2}
        assert done.stdout == "False\n"
