"""The CPU filters of NeMo Curator on rows with a field ``text``, as columns of OUT.

Stage by stage in this process, or with ``--ray`` as a pipeline into a folder; this starts the command ``ray``, so the
environment must be on the path.

    python curator.py text.jsonl MODEL OUT.jsonl
    PATH=ENVIRONMENT/bin:$PATH python curator.py text.jsonl MODEL FOLDER --ray
"""

from __future__ import annotations

import sys

import pandas as pd
from nemo_curator.stages.text.filters import Score, ScoreFilter
from nemo_curator.stages.text.filters.heuristic import WordCountFilter
from nemo_curator.stages.text.filters.heuristic.repetition import RepeatingTopNGramsFilter
from nemo_curator.stages.text.filters.token import TokenCountFilter
from nemo_curator.tasks import DocumentBatch
from transformers import AutoTokenizer


def main(rows: str, model: str, out: str, *ray: str) -> None:
    """Score and filter."""
    tokens = TokenCountFilter(tokenizer=AutoTokenizer.from_pretrained(model))
    stages = [
        Score(tokens, score_field="tokens"),
        Score(len, score_field="characters"),
        Score(WordCountFilter(), score_field="words"),
        Score(RepeatingTopNGramsFilter(n=2), score_field="top_2grams"),
        ScoreFilter(WordCountFilter(min_words=50)),
    ]
    if ray:
        as_pipeline(stages, rows, out)
        return
    batch = DocumentBatch(dataset_name="coming-from", data=pd.read_json(rows, lines=True))
    for stage in stages:
        batch = stage.process(batch)
        print(stage.name, len(batch.to_pandas()), flush=True)
        if isinstance(stage, Score):
            batch.to_pandas().to_json(out, lines=True, orient="records", force_ascii=False)


def as_pipeline(stages: list[Score | ScoreFilter], rows: str, out: str) -> None:
    """The same on Ray."""
    from nemo_curator.core.client import RayClient  # noqa: PLC0415 - only where Ray is wanted
    from nemo_curator.pipeline import Pipeline  # noqa: PLC0415
    from nemo_curator.stages.text.io.reader import JsonlReader  # noqa: PLC0415
    from nemo_curator.stages.text.io.writer import JsonlWriter  # noqa: PLC0415

    client = RayClient(num_cpus=2, num_gpus=0, include_dashboard=False)
    client.start()
    Pipeline(name="coming-from", stages=[JsonlReader(file_paths=rows), *stages, JsonlWriter(path=out)]).run()
    client.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
