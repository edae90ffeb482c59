"""Mixed load on a real `instructmining serve` for minutes: does it leak, fail, or answer other numbers than `score`?

    python -m benchmarks.serving.soak BUNDLE --minutes 30 --out DIR

Clients in one event loop send requests of one short row to the limits, requests that they cancel, and bad bodies. Every
ten seconds the service's resident memory, open files, threads and latencies are sampled: a line each on standard
output, and all of it in DIR/soak.csv. The verdict, also in DIR/soak.json, and the exit code say whether

- resident memory is flat: after a warm-up of a fifth of the time, the samples are averaged in ten blocks, since
  neighbours in time are alike, and a line is fitted to the blocks; its 95% interval must reach 0, or the growth that it
  allows over the whole time be below 2%;
- no answer was a 5xx, every bad body was refused with its status, and no other request was refused but with 429;
- every number equals the batch `score` of the same rows, within 1e-5 of its size or of 1;
- after the load no request waits, and there are no more open files than before it, and threads than at its beginning.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gzip
import json
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx2
import numpy as np

from instructmining import Scorer

WORDS = [
    "bread",
    "rises",
    "because",
    "yeast",
    "gives",
    "off",
    "gas",
    "train",
    "noon",
    "ferry",
    "three",
    "colour",
    "green",
]
SAMPLE_S = 10.0
TIMEOUT_S = 300  # requests of the largest size may take a minute where the machine is slow
IDLE_S = 10.0  # after the load; the service returns memory after 5
TOLERANCE = 1e-5
BLOCKS, T_95 = 10, 2.306  # Student's t of 8 degrees of freedom
FLAT = 0.02
KINDS = {"one": 45, "few": 20, "many": 8, "limit": 2, "cancelled": 15, "bad": 10}  # shares of the requests
ROWS_OF = {"one": 1, "few": 8, "many": 64}
ROW = b'{"instruction": "a", "output": "b"}'
BAD: list[tuple[bytes, str, int]] = [  # bodies, their encodings, and the statuses of their answers
    (b"{", "identity", 400),
    (b"[1]", "identity", 422),
    (b'{"examples": []}', "identity", 422),
    (b'{"examples": [{"instruction": "no output"}]}', "identity", 422),
    (b'{"examples": [' + b",".join([ROW] * 3000) + b"]}", "identity", 413),
    (gzip.compress(b" " * (33 << 20)), "gzip", 413),
    (b"no gzip", "gzip", 400),
    (ROW, "br", 415),
]


@dataclass(frozen=True, slots=True)
class Sample:
    seconds: float
    rss_mb: float
    files: int
    threads: int
    requests: int  # answered since the last sample
    p50_ms: float  # of requests of one row
    p95_ms: float
    p99_ms: float


@dataclass(slots=True)
class Seen:
    statuses: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)  # answers that should be others
    largest_difference: float = 0.0
    numbers: int = 0  # compared
    latencies: list[float] = field(default_factory=list)  # of one row, since the last sample
    answered: int = 0


def make_rows(count: int, longest_words: int) -> list[dict[str, str]]:
    """Different rows, from one word to the longest; the same each time."""
    dice = random.Random(20261126)
    sizes = [1 + int(longest_words * (number / count) ** 3) for number in range(count)]
    return [
        {
            "instruction": f"Name {number}, " + " ".join(dice.choices(WORDS, k=1 + size // 8)),
            "output": " ".join(dice.choices(WORDS, k=size)),
        }
        for number, size in enumerate(sizes)
    ]


class Load:
    """Clients that ask until the time is over."""

    def __init__(self, url: str, rows: Sequence[dict[str, str]], expected: Sequence[dict[str, float | None]]) -> None:
        self.url, self.rows, self.expected = f"{url}/v1/score", rows, expected
        self.seen = Seen()

    async def client(self, seed: int, end: float) -> None:
        dice = random.Random(seed)
        async with httpx2.AsyncClient(timeout=TIMEOUT_S + 10) as http:
            while time.monotonic() < end:
                kind = dice.choices(list(KINDS), weights=list(KINDS.values()))[0]
                self.seen.kinds[kind] += 1
                if kind == "bad":
                    await self.refused(http, *dice.choice(BAD))
                elif kind == "cancelled":
                    await self.cancelled(dice)
                else:
                    await self.scored(http, dice, kind)

    async def refused(self, http: httpx2.AsyncClient, body: bytes, encoding: str, status: int) -> None:
        answer = await http.post(self.url, content=body, headers={"content-encoding": encoding})
        self.note(answer, {status, 429})

    async def cancelled(self, dice: random.Random) -> None:
        chosen = dice.choices(range(len(self.rows)), k=dice.choice([1, 16, 128]))
        async with httpx2.AsyncClient(timeout=TIMEOUT_S + 10) as http:
            try:
                async with asyncio.timeout(dice.random() * 0.1):
                    await http.post(self.url, json={"examples": [self.rows[number] for number in chosen]})
            except TimeoutError:
                pass

    async def scored(self, http: httpx2.AsyncClient, dice: random.Random, kind: str) -> None:
        chosen = dice.choices(range(len(self.rows)), k=ROWS_OF.get(kind, 0)) or self.up_to_the_limit(dice)
        begin = time.perf_counter()
        answer = await http.post(self.url, json={"examples": [self.rows[number] for number in chosen]})
        if kind == "one":
            self.seen.latencies.append((time.perf_counter() - begin) * 1000)
        self.note(answer, {200, 429})
        if answer.status_code == 200:
            for number, result in zip(chosen, answer.json()["results"], strict=True):
                self.compare(number, result["columns"])
        else:
            await asyncio.sleep(float(answer.headers.get("retry-after", 1)))

    def up_to_the_limit(self, dice: random.Random) -> list[int]:
        """Return rows of 100,000 words or so, near the default limit of tokens."""
        chosen, left = [], 60_000
        while left > 0 and len(chosen) < 2000:
            chosen.append(dice.randrange(len(self.rows)))
            left -= len(self.rows[chosen[-1]]["output"].split())
        return chosen

    def note(self, answer: httpx2.Response, wanted: set[int]) -> None:
        self.seen.statuses[answer.status_code] += 1
        self.seen.answered += 1
        if answer.status_code not in wanted:
            self.seen.wrong.append(f"{answer.status_code}, wanted {sorted(wanted)}: {answer.text[:200]}")

    def compare(self, number: int, found: dict[str, float | None]) -> None:
        wanted = self.expected[number]
        if found.keys() != wanted.keys():
            self.seen.wrong.append(f"row {number}: columns {sorted(found)}")
            return
        for name, value in wanted.items():
            other = found[name]
            self.seen.numbers += 1
            if value is None or other is None:
                difference = 0.0 if value is other else np.inf
            else:
                difference = abs(other - value) / max(1.0, abs(value))
            self.seen.largest_difference = max(self.seen.largest_difference, difference)
            if difference > TOLERANCE:
                self.seen.wrong.append(f"row {number}, {name}: {other}, score gives {value}")


def sample(process: int, begin: float, seen: Seen) -> Sample:
    """Read what the system knows of the service, and start the next interval."""
    folder = Path(f"/proc/{process}")
    status = dict(line.split(":", 1) for line in (folder / "status").read_text(encoding="utf-8").splitlines())
    found = Sample(
        round(time.monotonic() - begin, 1),
        round(int(status["VmRSS"].split()[0]) / 1024, 1),
        len(list((folder / "fd").iterdir())),
        int(status["Threads"]),
        seen.answered,
        *(np.percentile(seen.latencies, [50, 95, 99]).round(1).tolist() if seen.latencies else [float("nan")] * 3),
    )
    seen.latencies, seen.answered = [], 0
    return found


def slope(samples: Sequence[Sample]) -> tuple[float, float, float]:
    """Return the slope of resident memory in MB an hour, and its 95% interval, from means of ten blocks."""
    blocks = np.array_split(np.arange(len(samples)), BLOCKS)
    hours = np.array([np.mean([samples[i].seconds for i in block]) for block in blocks]) / 3600
    memory = np.array([np.mean([samples[i].rss_mb for i in block]) for block in blocks])
    around = hours - hours.mean()
    found = float(around @ memory / (around @ around))
    left = memory - memory.mean() - found * around
    error = T_95 * float(np.sqrt(left @ left / (BLOCKS - 2) / (around @ around)))
    return found, found - error, found + error


def verdict(samples: Sequence[Sample], before: Sample, after: Sample, load: Load, waiting: float) -> dict[str, object]:
    """Return what the soak shows, by name."""
    seen = load.seen
    late = [one for one in samples if one.seconds >= samples[-1].seconds / 5]
    said: dict[str, object] = {
        "requests": sum(seen.kinds.values()),
        "kinds": dict(seen.kinds),
        "statuses": {str(status): count for status, count in sorted(seen.statuses.items())},
        "numbers_compared": seen.numbers,
        "largest_difference": seen.largest_difference,
        "wrong": seen.wrong[:20],
        "wrong_count": len(seen.wrong),
        "rss_mb": {
            "before": before.rss_mb,
            "most": max(one.rss_mb for one in samples),
            "last": samples[-1].rss_mb,
            "after_idle": after.rss_mb,
        },
        "files": [before.files, after.files],
        "threads": [samples[0].threads, after.threads],
        "requests_that_wait": waiting,
    }
    checks = {
        "answers_right": not seen.wrong and not any(status >= 500 for status in seen.statuses),
        "numbers_equal": seen.numbers > 0 and seen.largest_difference <= TOLERANCE,
        "nothing_left": waiting == 0 and after.files <= before.files and after.threads <= samples[0].threads,
    }
    if len(late) >= 2 * BLOCKS:
        found, low, high = slope(late)
        hours = samples[-1].seconds / 3600
        said["rss_slope_mb_per_hour"] = {"slope": round(found, 2), "low": round(low, 2), "high": round(high, 2)}
        checks["memory_flat"] = low <= 0 or high * hours < FLAT * float(np.mean([one.rss_mb for one in late]))
    else:
        said["rss_slope_mb_per_hour"] = f"too few samples ({len(late)}) after the warm-up; give more --minutes"
    return {**said, "checks": checks, "passed": all(checks.values())}


async def waits(http: httpx2.AsyncClient, url: str) -> float:
    """Return the requests that wait or are being answered, without the one that asks."""
    lines = (await http.get(f"{url}/metrics")).text.splitlines()
    values = {line.split()[0]: float(line.split()[-1]) for line in lines if line and line[0] != "#" and "{" not in line}
    return values["instructmining_queue_requests"] + values["instructmining_requests_in_flight"] - 1


async def soak(
    process: int, url: str, load: Load, seconds: float, clients: int
) -> tuple[list[Sample], dict[str, object]]:
    async with httpx2.AsyncClient(timeout=TIMEOUT_S + 10) as http:
        await http.get(f"{url}/health")
        begin = time.monotonic()
        before = sample(process, begin, load.seen)
        print("  ".join(f"{name:>8}" for name in asdict(before)))
        asking = [asyncio.create_task(load.client(seed, begin + seconds)) for seed in range(clients)]
        samples = []
        while time.monotonic() < begin + seconds:
            await asyncio.sleep(min(SAMPLE_S, max(0.1, begin + seconds - time.monotonic())))
            samples.append(sample(process, begin, load.seen))
            print("  ".join(f"{value:>8}" for value in asdict(samples[-1]).values()), flush=True)
        await asyncio.gather(*asking)
        await asyncio.sleep(IDLE_S)
        after = sample(process, begin, load.seen)
        return samples, verdict(samples, before, after, load, await waits(http, url))


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            if httpx2.get(f"{url}/health/ready", timeout=10).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"the service ended with {process.returncode}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--indicators", default="perplexity,reward,mtld,ifd,input_length,output_length")
    parser.add_argument("--longest-words", type=int, default=600)
    parser.add_argument("--out", type=Path, default=Path("soak"))
    options = parser.parse_args()
    rows = make_rows(400, options.longest_words)
    with Scorer.open(options.bundle, indicators=options.indicators, device="cpu") as scorer:
        expected = [dict(row.columns) for row in scorer.score(rows)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "instructmining", "serve", "--bundle", options.bundle, "--device", "cpu"]
    process = subprocess.Popen(
        [*command, "--indicators", options.indicators, "--port", str(port), "--timeout", str(TIMEOUT_S)]
    )
    try:
        wait_until_ready(url, process)
        load = Load(url, rows, expected)
        samples, said = asyncio.run(soak(process.pid, url, load, options.minutes * 60, options.clients))
    finally:
        process.terminate()
        process.wait(120)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "soak.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(asdict(samples[0])))
        table.writeheader()
        table.writerows(map(asdict, samples))
    text = json.dumps(said, indent=1)
    (options.out / "soak.json").write_text(f"{text}\n", encoding="utf-8")
    print(text)
    return 0 if said["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
