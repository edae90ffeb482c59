"""Signals, readers that go away and closed streams: how the process ends, seen from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals, pipes and descriptors")

COMMAND = [sys.executable, "-c", "from instructmining_cli.main import main; main()"]
ENDS = {signal.SIGINT: (130, b"interrupted"), signal.SIGTERM: (143, b"terminated")}
ROWS = b"".join(
    b'{"instruction": "Name colour %d.", "output": "Green is a colour, and so are blue and %d."}\n' % (n, n)
    for n in range(300)
)
_WITHIN_S = 2.0  # a second, on a machine that is busy


def started(*arguments: str | Path, stdin: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.Popen(command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def stopped(process: subprocess.Popen[bytes], number: signal.Signals) -> tuple[int, bytes]:
    """The exit code and the last line, of a process that ends soon after the signal."""
    process.send_signal(number)
    try:
        code = process.wait(_WITHIN_S)
    finally:
        process.kill()
    assert process.stderr is not None
    said = process.stderr.read()
    for stream in (process.stdin, process.stderr):
        if stream is not None:
            stream.close()
    assert b"Traceback" not in said
    assert b"gnored" not in said
    return code, said.splitlines()[-1]


def until_it_reads(process: subprocess.Popen[bytes]) -> None:
    """Wait until all its threads wait, and have for a while."""
    quiet, before = 0, -1.0
    while quiet < 6 and process.poll() is None:
        time.sleep(0.1)
        used = sum(map(int, Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
        quiet = quiet + 1 if used == before else 0
        before = used


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", ENDS)
@pytest.mark.parametrize("sent", [b"", ROWS])
@pytest.mark.parametrize("command", ["score", "score to standard output", "inspect"])
def test_a_command_whose_standard_input_is_silent_ends_at_once(
    small_bundle: Path, tmp_path: Path, command: str, sent: bytes, number: signal.Signals
) -> None:
    out = {"score": ["-o", tmp_path / "out.jsonl"], "inspect": []}.get(command, ["-o", "-"])
    process = started(command.split(maxsplit=1)[0], "-", *out, "--bundle", small_bundle, "--device", "cpu")
    assert process.stdin is not None
    process.stdin.write(sent)
    process.stdin.flush()
    until_it_reads(process)
    assert stopped(process, number) == ENDS[number]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_command_that_waits_for_a_pipes_writer_ends_at_once(small_bundle: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows")
    process = started("score", tmp_path / "rows", "-o", tmp_path / "out.jsonl", "--bundle", small_bundle)
    until_it_reads(process)
    assert stopped(process, signal.SIGINT) == ENDS[signal.SIGINT]


def test_a_limit_is_reached_while_standard_input_stays_open(small_bundle: Path, tmp_path: Path) -> None:
    options = ("--limit", "5", "--bundle", small_bundle, "--indicators", "mtld")
    with started("score", "-", "-o", tmp_path / "out.jsonl", *options) as process:
        assert process.stdin is not None
        process.stdin.write(ROWS)
        process.stdin.flush()
        assert process.wait(60) == 0
    assert (tmp_path / "out.jsonl").read_bytes().count(b"\n") == 5


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", ENDS)
@pytest.mark.parametrize("later_s", [0.0, 0.05, 0.1, 0.2, 0.4])
def test_a_signal_while_the_program_is_loaded_shows_no_traceback(
    small_bundle: Path, tmp_path: Path, number: signal.Signals, later_s: float
) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_bytes(ROWS)
    process = started("score", source, "-o", tmp_path / "out.jsonl", "--bundle", small_bundle)
    while not _catches(process.pid, signal.SIGTERM):  # as soon as any of our code has run
        time.sleep(0.0005)
    time.sleep(later_s)
    assert stopped(process, number) == ENDS[number]


def _catches(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt:")).split()[1], 16)
    return bool(caught >> (number - 1) & 1)


@pytest.mark.parametrize("signals", [1, 2])
def test_a_process_that_cannot_unwind_is_ended_all_the_same(signals: int) -> None:
    code = """
import time
from instructmining_cli.process.stopping import stopping
stopping().install()
with stopping().unwinding(), stopping().noting(lambda: "much is kept", say=print):
    print("ready", flush=True)
    try:
        time.sleep(60)
    finally:
        time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.3)
        begin = time.monotonic()
        for _ in range(signals):
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)
        assert process.wait(_WITHIN_S) == 130
        assert (time.monotonic() - begin < 0.6) == (signals == 2)
        assert process.stderr.read() == b"interrupted; much is kept\n"


@pytest.mark.parametrize("number", ENDS)
@pytest.mark.parametrize("signals", [1, 2])
def test_a_server_ends_in_its_own_time_after_one_signal_and_at_once_after_two(
    signals: int, number: signal.Signals
) -> None:
    code = """
import time
from instructmining_cli.process.stopping import stopping
stopping().install()
asked = []
with stopping().unwinding():
    with stopping().asking(lambda: asked.append(True)):
        print("ready", flush=True)
        while not asked:
            time.sleep(0.01)
        time.sleep(1)
    time.sleep(0.2)
print("answered")
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        for _ in range(signals):
            process.send_signal(number)
            time.sleep(0.1)
        code_of_end, word = ENDS[number]
        assert process.wait(_WITHIN_S) == (0 if signals == 1 else code_of_end)
        assert process.stdout.read() == (b"answered\n" if signals == 1 else b"")
        assert process.stderr.read() == (b"" if signals == 1 else word + b"\n")


def test_a_signal_that_the_process_was_started_to_ignore_stays_ignored(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_bytes(ROWS)
    command = f"trap '' INT; {' '.join(map(repr, COMMAND))} inspect {source} & sleep 0.2; kill -INT $!; wait $!"
    assert subprocess.run(["sh", "-c", command], capture_output=True, check=False).returncode == 0


# Readers that go away, streams that are closed


@pytest.fixture(scope="module")
def scored(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    (folder / "rows.jsonl").write_bytes(ROWS)
    out = folder / "scored.jsonl"
    options = ["-o", str(out), "--bundle", str(small_bundle), "--device", "cpu"]
    subprocess.run([*COMMAND, "score", str(folder / "rows.jsonl"), *options], check=True, capture_output=True)
    return out


PRINTING = ("score", "inspect", "describe", "compare", "select", "rescore", "--help")


def printing(name: str, scored: Path, bundle: Path) -> list[str]:
    rows, of = str(scored.with_name("rows.jsonl")), str(scored)
    return {
        "score": ["score", rows, "-o", "-", "--bundle", str(bundle), "--device", "cpu"],
        "inspect": ["inspect", rows, "--bundle", str(bundle)],
        "describe": ["describe", of],
        "compare": ["compare", of, of],
        "select": ["select", of, "-o", "-", "--top", "300"],
        "rescore": ["rescore", of, "-o", "-", "--rule", "paper-v1"],
    }.get(name, [name])


@pytest.mark.parametrize("name", PRINTING)
def test_a_command_whose_reader_went_away_ends_quietly(name: str, scored: Path, small_bundle: Path) -> None:
    command = [*COMMAND, *printing(name, scored, small_bundle)]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(writer)
    assert done.returncode == 141
    assert b"rror" not in done.stderr
    assert b"roken" not in done.stderr


@pytest.mark.parametrize("name", ["score", "rescore"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_rows_for_which_standard_output_has_no_room_are_an_error(
    name: str, unbuffered: str, scored: Path, small_bundle: Path, tmp_path: Path
) -> None:
    command = [*COMMAND, *printing(name, scored, small_bundle)]
    if name == "score":
        command += ["--indicators", "output_length,mtld"]  # without the search's temporary files
    with (tmp_path / "out.jsonl").open("wb") as out:
        done = subprocess.run(
            ["sh", "-c", 'ulimit -f 8; trap "" XFSZ; exec "$@"', "sh", *command],
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered, "XDG_CACHE_HOME": str(tmp_path / "cache")},
            stdout=out,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == b"error: standard output: File too large"


@pytest.mark.parametrize("name", ["score", "rescore"])
def test_a_reader_that_goes_away_is_noticed_without_pythons_buffer(name: str, scored: Path, small_bundle: Path) -> None:
    reader, writer = os.pipe()
    command = [*COMMAND, *printing(name, scored, small_bundle)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, env=environment, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    os.read(reader, 100)
    os.close(reader)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 141
    assert b"rror" not in said


@pytest.mark.parametrize("name", PRINTING)
def test_closed_streams_are_no_traceback(name: str, scored: Path, small_bundle: Path) -> None:
    def done(redirection: str) -> subprocess.CompletedProcess[bytes]:
        command = ["sh", "-c", f'"$@" {redirection}', "sh", *COMMAND, *printing(name, scored, small_bundle)]
        return subprocess.run(command, capture_output=True, check=False, timeout=60)

    closed = done(">&-")
    assert closed.returncode == 1
    assert closed.stderr.splitlines()[-1] == b"error: standard output: Bad file descriptor"
    assert b"Traceback" not in closed.stderr
    silent = done("2>&-")
    assert silent.returncode == 0
    assert silent.stdout


def test_standard_input_that_is_closed_is_one_line(small_bundle: Path) -> None:
    command = ["sh", "-c", '"$@" <&-', "sh", *COMMAND, "inspect", "-", "--bundle", str(small_bundle)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"error: standard input is closed; give a file, or a pipe to read from\n"


def test_what_is_said_goes_into_no_file_where_all_streams_are_closed(scored: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    command = [*COMMAND, "select", str(scored), "-o", str(out), "--top", "3"]
    subprocess.run(["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *command], check=True, timeout=60)
    assert len([json.loads(line) for line in out.read_bytes().splitlines()]) == 3
