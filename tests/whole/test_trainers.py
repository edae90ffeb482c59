"""What ``select`` writes, loaded by the trainers' own code: make test-trainers."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from paths import ROOT
from small_bundle import small_tokenizer

from instructmining.scored.card_facts import facts_of
from instructmining.scored.card_text import CardOptions, card_text
from instructmining.scored.selection import Conversion, select
from instructmining.types import SCORE_COLUMNS
from instructmining.writing.shapes import TargetName

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "{% if m.tool_calls %}{% for c in m.tool_calls %}{{ c.function.name }}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Now.", "parameters": {}}}]
PLAIN: list[dict[str, Any]] = [
    {"id": 1, "instruction": "Sort.", "input": "3 1 2", "output": "1 2 3"},
    {"id": 2, "prompt": "Name a colour.", "completion": "Red."},
    {
        "id": 3,
        "system": "Be brief.",
        "conversations": [
            {"from": "human", "value": "Hello."},
            {"from": "gpt", "value": "Hello!"},
            {"from": "human", "value": "Count to two."},
            {"from": "gpt", "value": "One, two."},
        ],
    },
]
WITH_TOOLS: dict[str, Any] = {
    "id": 4,
    "messages": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "12 °C", "tool_call_id": "c1"},
        {"role": "assistant", "content": "It is 12 °C."},
    ],
    "tools": TOOLS,
}
PAIRS: list[dict[str, Any]] = [
    {"prompt": "Name a colour.", "chosen": "Red.", "rejected": "Seven."},
    {
        "chosen": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello."},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "Count to two."},
            {"role": "assistant", "content": "One, two."},
        ],
        "rejected": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello."},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "Count to two."},
            {"role": "assistant", "content": "Two."},
        ],
    },
]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


CONVERSATIONS = [
    [user("Sort.\n3 1 2"), assistant("1 2 3")],
    [user("Name a colour."), assistant("Red.")],
    [user("Hello."), assistant("Hello!"), user("Count to two."), assistant("One, two.")],
]
SYSTEMS = ["", "", "Be brief."]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that nothing outside of is written by what loads data."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hub" / "datasets"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("AXOLOTL_DO_NOT_TRACK", "1")
    return tmp_path


def written(folder: Path, target: TargetName, rows: Sequence[Mapping[str, Any]], name: str = "") -> Path:
    """Select all of some scored rows, as a file of that shape."""
    scored = folder / "scored.jsonl"
    added = {"predicted_log_loss": 0.5, "truncated": [], "score_notes": {}}
    with scored.open("w") as file:
        for at, row in enumerate(rows):
            file.write(json.dumps({**row, **added, "predicted_log_loss": at / 10}) + "\n")
    out = folder / (name or f"{target}.jsonl")
    keep = ("id",) if "id" in rows[0] else ()
    select(scored, out, top=9, convert=Conversion(target, keep=keep), keep_scores=True, overwrite=True)
    return out


def loaded(path: Path) -> Any:  # noqa: ANN401 - a data set
    from datasets import load_dataset  # noqa: PLC0415 - in its own environment

    kind = "parquet" if path.suffix == ".parquet" else "csv" if ".csv" in path.name else "json"
    return load_dataset(kind, data_files=str(path), split="train", cache_dir=str(path.parent / "cache"))


def tokenizer() -> Any:  # noqa: ANN401 - transformers'
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    return PreTrainedTokenizerFast(
        tokenizer_object=small_tokenizer(),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=TEMPLATE,
        model_input_names=["input_ids", "attention_mask"],
    )


def policy() -> Any:  # noqa: ANN401
    import torch  # noqa: PLC0415
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return LlamaForCausalLM(LlamaConfig(vocab_size=400, num_key_value_heads=1, **sizes, **ids))


def blocks(language: str) -> list[str]:
    """The code in a language that docs/outputs.md shows."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / "docs/outputs.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )


def chatml(turns: Sequence[Mapping[str, str]]) -> str:
    return "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in turns)


def with_system(turns: list[dict[str, str]], system: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, *turns] if system else turns


# TRL


@pytest.mark.parametrize("name", ["messages.jsonl", "messages.jsonl.gz", "messages.parquet"])
def test_trl_trains_on_messages(folder: Path, name: str) -> None:
    from trl import SFTConfig, SFTTrainer  # noqa: PLC0415
    from trl.data_utils import apply_chat_template, is_conversational  # noqa: PLC0415

    train = loaded(written(folder, "messages", PLAIN, name))
    own = [column for column in train.column_names if column == "messages"]
    assert set(train.column_names) - {"messages", "id", "truncated", "score_notes"} <= set(SCORE_COLUMNS)
    for row, turns, system in zip(train.select_columns(own), CONVERSATIONS, SYSTEMS, strict=True):
        assert is_conversational(row)
        assert apply_chat_template(row, tokenizer())["text"] == chatml(with_system(turns, system))
    arguments = SFTConfig(
        str(folder / "trl"),
        max_steps=1,
        per_device_train_batch_size=3,
        report_to=[],
        use_cpu=True,
        max_length=64,
        bf16=False,
    )
    trainer = SFTTrainer(policy(), arguments, train_dataset=train, processing_class=tokenizer())
    assert trainer.train().global_step == 1


def test_trl_renders_calls_of_tools(folder: Path) -> None:
    from trl.data_utils import apply_chat_template  # noqa: PLC0415

    (row,) = loaded(written(folder, "messages", [WITH_TOOLS])).select_columns(["messages", "tools"])
    said = apply_chat_template({"messages": row["messages"]}, tokenizer(), tools=row["tools"])["text"]
    assert said == chatml(
        [user("Weather?"), assistant("weather"), {"role": "tool", "content": "12 °C"}, assistant("It is 12 °C.")]
    )


@pytest.mark.parametrize("name", ["preference.jsonl", "preference.parquet"])
def test_trl_trains_on_pairs(folder: Path, name: str) -> None:
    from trl import DPOConfig, DPOTrainer  # noqa: PLC0415
    from trl.data_utils import is_conversational  # noqa: PLC0415

    train = loaded(written(folder, "preference", PAIRS, name))
    assert all(is_conversational(row) for row in train.select_columns(["prompt", "chosen", "rejected"]))
    arguments = DPOConfig(
        str(folder / "trl"),
        max_steps=1,
        per_device_train_batch_size=2,
        report_to=[],
        use_cpu=True,
        max_length=64,
        bf16=False,
    )
    policy().save_pretrained(folder / "model")
    trainer = DPOTrainer(str(folder / "model"), args=arguments, train_dataset=train, processing_class=tokenizer())
    assert trainer.train().global_step == 1


# datasets


@pytest.mark.parametrize(
    "name", ["best.jsonl", "best.jsonl.gz", "best.jsonl.zst", "best.parquet", "best.csv", "best.tsv"]
)
def test_datasets_loads_every_kind_of_file_as_the_card_says(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import DatasetCard  # noqa: PLC0415

    path = written(folder, "messages", PLAIN, name)
    text = card_text([facts_of(str(path))], CardOptions(license="cc-by-4.0"), [name])
    (block,) = re.findall("```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(folder)
    found: dict[str, Any] = {}
    exec(block.partition("import pandas")[0], found)
    assert found["rows"]["predicted_log_loss"][:] == [0.0, 0.1, 0.2]
    assert found["rows"].features["predicted_log_loss"].dtype == "float64"
    said = found["rows"]["messages"][1]
    assert (json.loads(said) if isinstance(said, str) else said) == CONVERSATIONS[1]
    assert DatasetCard(text).data.license == "cc-by-4.0"


def test_datasets_finds_the_files_of_a_folder_by_its_card(folder: Path) -> None:
    from datasets import get_dataset_config_names, load_dataset  # noqa: PLC0415

    place = folder / "set"
    place.mkdir()
    for name in ("best.jsonl", "random.jsonl"):
        written(folder, "messages", PLAIN, f"set/{name}")
        (place / f"{name}.selection.json").rename(folder / f"{name}.selection.json")
    names = ["best.jsonl", "random.jsonl"]
    facts = [facts_of(str(place / name)) for name in names]
    (place / "README.md").write_text(card_text(facts, CardOptions(), names), "utf-8")
    assert get_dataset_config_names(str(place)) == ["best", "random"]
    rows = load_dataset(str(place), "random", split="train", cache_dir=str(folder / "cache"))
    assert rows["messages"][1] == CONVERSATIONS[1]


# LLaMA-Factory


@pytest.fixture
def factory(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLaMA-Factory imports torchaudio, which only reads sounds; an empty module stands in for it."""
    if "llamafactory.data.converter" not in sys.modules:
        empty = ModuleType("torchaudio")
        empty.__spec__ = ModuleSpec("torchaudio", None)
        monkeypatch.setitem(sys.modules, "torchaudio", empty)
        import llamafactory.data.loader  # noqa: F401, PLC0415


def factory_rows(folder: Path, name: str, *, tools: bool = False) -> list[dict[str, Any]]:
    """Rows as LLaMA-Factory's own loader reads them, with the entry that docs/outputs.md shows."""
    from llamafactory.data.loader import _load_single_dataset  # noqa: PLC0415
    from llamafactory.data.parser import get_dataset_list  # noqa: PLC0415

    entries = next(json.loads(text) for text in blocks("json") if '"file_name"' in text)
    if not tools:
        entries["sharegpt"]["columns"].pop("tools")
    (folder / "dataset_info.json").write_text(json.dumps(entries))
    (attributes,) = get_dataset_list([name], str(folder))
    data = SimpleNamespace(
        dataset_dir=str(folder), streaming=False, preprocessing_num_workers=None, overwrite_cache=True,
        max_samples=None, media_dir="",
    )  # fmt: skip
    model = SimpleNamespace(cache_dir=str(folder / "cache"), hf_hub_token=None)
    rows = _load_single_dataset(attributes, model, data, SimpleNamespace(local_process_index=0))
    return list(rows)


@pytest.mark.usefixtures("factory")
@pytest.mark.parametrize("target", ["messages", "sharegpt", "alpaca"])
def test_llama_factory_reads_conversations(folder: Path, target: TargetName) -> None:
    written(folder, target, PLAIN)
    rows = factory_rows(folder, target)
    assert [[*row["_prompt"], *row["_response"]] for row in rows] == CONVERSATIONS
    assert [row["_system"] for row in rows] == SYSTEMS


@pytest.mark.usefixtures("factory")
def test_llama_factory_reads_calls_of_tools(folder: Path) -> None:
    from llamafactory.data.formatter import FunctionFormatter  # noqa: PLC0415

    written(folder, "sharegpt", [WITH_TOOLS])
    (row,) = factory_rows(folder, "sharegpt", tools=True)
    assert [turn["role"] for turn in row["_prompt"]] == ["user", "function", "observation"]
    assert row["_response"] == [assistant("It is 12 °C.")]
    assert json.loads(row["_tools"]) == TOOLS
    called = FunctionFormatter(slots=["{{content}}"], tool_format="default").apply(content=row["_prompt"][1]["content"])
    assert called == ['Action: weather\nAction Input: {"city": "Bonn"}']


@pytest.mark.usefixtures("factory")
@pytest.mark.parametrize("target", ["sharegpt", "alpaca"])
def test_llama_factory_reads_pairs(folder: Path, target: TargetName) -> None:
    written(folder, target, PAIRS, f"{target}_pairs.jsonl")
    rows = factory_rows(folder, f"{target}_pairs")
    assert [row["_prompt"] for row in rows] == [[user("Name a colour.")], CONVERSATIONS[2][:3]]
    assert [row["_response"] for row in rows] == [
        [assistant("Red."), assistant("Seven.")],
        [assistant("One, two."), assistant("Two.")],
    ]
    assert [row["_system"] for row in rows] == ["", "Be brief."]


@pytest.mark.usefixtures("factory")
def test_llama_factory_leaves_out_what_select_says_it_does(folder: Path) -> None:
    uneven = {"messages": [user("a"), user("b"), assistant("c")]}
    written(folder, "sharegpt", [*({**row, "id": 0} for row in PLAIN[:1]), {"id": 9, **uneven}])
    rows = factory_rows(folder, "sharegpt")
    assert [bool(row["_response"]) for row in rows] == [True, False]
    said = json.loads((folder / "sharegpt.jsonl.selection.json").read_text())
    assert said["converted"]["uneven"] == 1


# Axolotl


def axolotl_config(shown: str, **more: object) -> Any:  # noqa: ANN401
    """A configuration as Axolotl checks it, with the data sets that docs/outputs.md shows."""
    import yaml  # noqa: PLC0415
    from axolotl.utils.dict import DictDefault  # noqa: PLC0415
    from axolotl.utils.schemas.config import AxolotlInputConfig  # noqa: PLC0415

    given = {
        "base_model": "small",
        "sequence_len": 512,
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-4,
        "num_epochs": 1,
        **yaml.safe_load(shown),
        **more,
    }
    return DictDefault(AxolotlInputConfig(**given).model_dump(exclude_none=True))


def trained_text(row: Mapping[str, Any]) -> str:
    return str(tokenizer().decode([label for label in row["labels"] if label != -100]))


def axolotl_rows(folder: Path, file: str) -> list[dict[str, Any]]:
    """Tokenized rows of a file, by the strategy that Axolotl chooses for it."""
    from axolotl.utils.data.wrappers import get_dataset_wrapper  # noqa: PLC0415

    config = axolotl_config(next(text for text in blocks("yaml") if file in text))
    (entry,) = [one for one in config.datasets if one.path == file]
    rows = loaded(folder / file)
    base = entry.type.split(":")[0]
    wrapped, _ = get_dataset_wrapper(entry, tokenizer(), config, base, rows)
    return list(wrapped)


@pytest.mark.parametrize("target", ["messages", "sharegpt"])
def test_axolotl_tokenizes_conversations(folder: Path, target: TargetName) -> None:
    written(folder, target, PLAIN)
    rows = axolotl_rows(folder, f"{target}.jsonl")
    for row, turns, system in zip(rows, CONVERSATIONS, SYSTEMS, strict=True):
        assert tokenizer().decode(row["input_ids"]) == chatml(with_system(turns, system))
        assert trained_text(row) == "".join(f"{turn['content']}<|im_end|>" for turn in turns[1::2])


def test_axolotl_tokenizes_alpaca(folder: Path) -> None:
    written(folder, "alpaca", PLAIN)
    rows = axolotl_rows(folder, "alpaca.jsonl")
    assert "### Instruction:\nSort.\n\n### Input:\n3 1 2\n\n### Response:" in tokenizer().decode(rows[0]["input_ids"])
    assert [trained_text(row) for row in rows] == ["1 2 3<|im_end|>", "Red.<|im_end|>", "One, two.<|im_end|>"]


def test_axolotl_renders_pairs(folder: Path) -> None:
    from axolotl.prompt_strategies.dpo import load  # noqa: PLC0415

    path = written(folder, "preference", PAIRS)
    config = axolotl_config(
        next(text for text in blocks("yaml") if "rl: dpo" in text), chat_template="tokenizer_default"
    )
    transform, options = load(config.datasets[0].type, config, dataset_idx=0)
    rows = loaded(path).map(transform, fn_kwargs={"tokenizer": tokenizer()}, **options)
    assert rows[0]["prompt"] == chatml([user("Name a colour.")]) + "<|im_start|>assistant\n"
    assert (rows[0]["chosen"], rows[0]["rejected"]) == ("Red.<|im_end|>", "Seven.<|im_end|>")
    before = with_system(CONVERSATIONS[2][:3], "Be brief.")
    assert rows[1]["prompt"] == chatml(before) + "<|im_start|>assistant\n"
