"""The CPU filters of NeMo Curator on rows with a field ``text``: counts as columns, and the long half kept.

python curator.py text.jsonl MODEL OUT
"""

from __future__ import annotations

import sys

from nemo_curator.core.client import RayClient
from nemo_curator.pipeline import Pipeline
from nemo_curator.stages.text.filters import Score, ScoreFilter
from nemo_curator.stages.text.filters.heuristic import WordCountFilter
from nemo_curator.stages.text.filters.heuristic.repetition import RepeatingTopNGramsFilter
from nemo_curator.stages.text.filters.token import TokenCountFilter
from nemo_curator.stages.text.io.reader import JsonlReader
from nemo_curator.stages.text.io.writer import JsonlWriter
from transformers import AutoTokenizer


def main(rows: str, model: str, out: str) -> None:
    """Score and filter."""
    client = RayClient(num_cpus=2, num_gpus=0, include_dashboard=False)
    client.start()
    tokens = TokenCountFilter(tokenizer=AutoTokenizer.from_pretrained(model))
    pipeline = Pipeline(
        name="coming-from",
        stages=[
            JsonlReader(file_paths=rows),
            Score(tokens, score_field="tokens"),
            Score(len, score_field="characters"),
            ScoreFilter(WordCountFilter(min_words=1), score_field="words"),
            ScoreFilter(RepeatingTopNGramsFilter(n=2, max_repeating_ngram_ratio=1.0), score_field="top_2grams"),
            JsonlWriter(path=out),
        ],
    )
    pipeline.run()
    client.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
