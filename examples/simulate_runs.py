"""Writes examples/runs.csv: made-up fine-tuning runs, in which the rule paper-v3 is true. No model was trained.

Each run stands for 1,000 examples mixed from four made-up sources. The noise is chosen so that the true terms explain
about half of the variance, as one source says of the paper's fit.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instructmining import Rule

SEED, RUNS, EXAMPLES = 20240701, 129, 1000
NOISE = 0.0095  # standard deviation of log loss
# By source: the mean of each indicator, then its standard deviation among examples.
INDICATORS = {
    "input_length": ((21, 45, 160, 15), 40),
    "output_length": ((60, 210, 240, 330), 130),
    "reward": ((0.4, 1.6, 0.2, 1.1), 1.4),
    "perplexity": ((4.8, 7.5, 11.0, 6.0), 4.0),
    "mtld": ((62, 78, 71, 85), 28),
    "knn_6": ((0.62, 0.81, 0.74, 0.69), 0.12),
    "naturalness": ((0.86, 0.90, 0.72, 0.83), 0.15),
    "coherence": ((0.93, 0.94, 0.84, 0.95), 0.10),
    "understandability": ((0.88, 0.91, 0.74, 0.86), 0.15),
}
DRIFT = 0.1  # sets differ beyond their mixture, as they were filtered; in standard deviations among examples


def simulate(seed: int) -> dict[str, NDArray[np.float64]]:
    """Columns of as many runs, each float64 (runs,)."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(4), size=RUNS)
    columns = {}
    for indicator, (by_source, spread) in INDICATORS.items():
        drift = rng.normal(scale=DRIFT * spread, size=RUNS)
        sampling = rng.normal(scale=spread / np.sqrt(EXAMPLES), size=RUNS)
        columns[indicator] = np.round(shares @ np.array(by_source) + drift + sampling, 4)
    noise = rng.normal(scale=NOISE, size=RUNS)
    return columns | {"loss": np.round(np.exp(Rule.load("paper-v3").predict(columns) + noise), 4)}


def main() -> None:
    """Write the file named on the command line, or the one that ships."""
    columns = simulate(SEED)
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("runs.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", *columns])
        for run in range(RUNS):
            writer.writerow([f"mix-{run + 1:03}", *(f"{values[run]:.4f}" for values in columns.values())])


if __name__ == "__main__":
    main()
