"""What every worker speaks: a JSON line in, a JSON line out; only the standard library, for any peer's Python.

Asked ``{"task": name, "material": {...}}`` it loads and answers with the settings that the task may be run at; asked
``{"setting": {...}, "values": true}`` it runs once and answers with seconds, and with values if they are wanted. An
error ends the process: the other side reads it from standard error.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

Setting = dict[str, Any]
_PARENT_DEATH_SIGNAL = 1  # of Linux's prctl


class Task:
    """Work that was loaded; subclasses measure nothing themselves."""

    settings: Sequence[Setting] = ({},)  # those worth trying

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}  # of the last run, beside its values

    def run(self, setting: Setting) -> Any:  # noqa: ANN401 - whatever the task's values are
        """Do the work once; returns values or whatever :meth:`values` makes values of."""
        raise NotImplementedError

    def values(self, result: Any) -> Any:  # noqa: ANN401
        """The run's result as JSON, outside the clock."""
        return result


def serve(tasks: Mapping[str, Callable[[dict[str, Any]], Task]], packages: Sequence[str]) -> None:
    """Answer until standard input ends."""
    _end_with_the_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print
    task = Task()
    for line in sys.stdin:
        request = json.loads(line)
        if "task" in request:
            begin = time.perf_counter()
            task = tasks[request["task"]](request["material"])
            answer: dict[str, Any] = {
                "settings": list(task.settings),
                "versions": {name: version(name) for name in packages if _installed(name)},
                "seconds": time.perf_counter() - begin,
            }
        else:
            gc.collect()
            begin, cpu = time.perf_counter(), time.process_time()
            result = task.run(request["setting"])
            answer = {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - cpu}
            answer |= {"peak_mb": peak_mb(), "facts": task.facts}
            if request["values"]:
                answer["values"] = task.values(result)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def texts_of(material: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Conversations as tokens: ``ids``, ``tokens`` as strings, ``response``, the place of its first token."""
    with open(material["texts"], encoding="utf-8") as file:  # noqa: PTH123 - a line of any Python
        return [json.loads(line) for line in file]


def pairs_of(path: str) -> list[tuple[str, str]]:
    """Prompt and response of each Alpaca row, by the standard library."""
    pairs = []
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        for line in file:
            row = json.loads(line)
            prompt = f"{row['instruction']}\n{row['input']}" if row["input"] else row["instruction"]
            pairs.append((prompt, row["output"]))
    return pairs


def peak_mb() -> float | None:
    """Most memory that this process has had in RAM; getrusage would count that of the process that started it."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1024
    except OSError:
        return None


def _end_with_the_parent() -> None:
    """A stopped worker must not outlive a killed parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
