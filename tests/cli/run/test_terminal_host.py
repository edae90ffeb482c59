"""The command line as the host of a run."""

from __future__ import annotations

import pickle

import pytest

from instructmining_cli.process.terminal import voice
from instructmining_cli.run.terminal_host import TerminalHost, quiet_host


def test_the_host_says_lines_and_cautions_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    host = TerminalHost()
    host.say("a line")
    host.warn("a caution \x1b")
    assert capsys.readouterr() == ("", "a line\na caution \\u001b\n")


def test_the_host_of_a_worker_says_cautions_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice(), "quiet", False)
    host = pickle.loads(pickle.dumps(quiet_host))()
    host.say("a line")
    host.warn("a caution")
    assert capsys.readouterr() == ("", "a caution\n")


@pytest.mark.parametrize(("on_error", "said"), [(True, "rows are kept\n"), (False, "")])
def test_what_a_run_leaves_is_said_where_it_fails(
    capsys: pytest.CaptureFixture[str], on_error: bool, said: str
) -> None:
    with pytest.raises(ValueError, match="bad"), TerminalHost().noting(lambda: "rows are kept", on_error=on_error):
        raise ValueError("bad")
    assert capsys.readouterr() == ("", said)
