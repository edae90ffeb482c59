"""Writes docs/formats.md from the table of shapes and the files in examples/formats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from instructmining import FieldOptions, read_examples
from instructmining.reading.conversations import SPEAKERS
from instructmining.reading.formats import MAP_KEYS, MAP_ROLES, SHAPES

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "formats.md"
FILES = ROOT / "examples" / "formats"

# Who writes rows like those of each file.
TITLES = {
    "alpaca": "Alpaca",
    "alpaca_history": "Alpaca with a system prompt and earlier turns (LLaMA-Factory)",
    "sharegpt": "ShareGPT",
    "sharegpt_role_content": "ShareGPT with the keys of messages",
    "lima": "LIMA",
    "messages": "OpenAI messages",
    "messages_parts": "messages with content in parts",
    "messages_json_text": "messages as a JSON text, as in CSV files",
    "messages_tool_calls": "messages with calls of tools",
    "capybara": "Capybara",
    "ultrachat": "UltraChat",
    "oasst": "OASST, a message a row",
    "dolly": "Dolly",
    "openorca": "OpenOrca",
    "question_context_answer": "question, context, answer",
    "query_response": "query, response",
    "input_output": "input, output",
    "prompt_completion": "prompt, completion",
    "prompt_completion_turns": "prompt and completion as lists of turns (TRL)",
    "transcript": "a transcript as Anthropic's HH has it",
    "guanaco": "OpenAssistant-Guanaco",
    "text": "a text alone",
    "preference": "prompt, chosen, rejected",
    "preference_alpaca": "Alpaca with two responses (LLaMA-Factory)",
    "preference_turns": "pairs as lists of turns (TRL)",
    "preference_whole": "pairs of whole conversations (UltraFeedback)",
    "preference_hh": "Anthropic's HH",
    "preference_llamafactory": "ShareGPT with two responses (LLaMA-Factory)",
    "document": "rows inside of a JSON document",
}


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The text of docs/formats.md."""
    return "\n".join([*_head(), *_shapes(), *_samples(), ""])


def _head() -> Iterator[str]:
    yield """# The shapes of rows that are read

Written by `examples/formats_page.py` from the table that detection and reading work by
(`engine/instructmining/reading/formats.py`) and from the files in `examples/formats`, one for each shape.

The shape of a file is that of its first row that has one (of the first 20), and holds for the whole file; the run
file names it under `settings.formats`, `--format NAME` sets it. Shapes are tried in the order of the table. Of the
names that a role goes by, the first that holds something is taken.

- **Nothing is dropped in silence.** A field that holds text and takes no role is named once for each file on standard
  error, and in the run file with its rows (`counts.not_read`); a key inside turns as `messages[].name`. `--ignore
  FIELD,…` says that a field may be left out, `--strict-fields` stops at any other. A text that equals one of the
  conversation's own is no loss and is not named.
- **The prompt** is the instruction, with its input or context on a line of its own below it where there is one."""
    roles, keys = _listed(MAP_ROLES), " and ".join(f"`{key}`" for key in MAP_KEYS)
    yield f"""- **Anything else**: `--map prompt=query,response=reply` says what the fields are, in place of a format.
  Roles: {roles};
  {keys} name the keys inside turns.
- **Turns** are objects with a role and a content, objects with `input` and `output`, or texts, user and assistant in
  turn. Roles, in any case: {_listed(SPEAKERS)}.
  An assistant's `tool_calls` (or `function_call`) are text of its turn, their compact JSON, on a line below its content
  if it has one; they are scored and counted. Results of tools are turns. A part of a content that is not text (an
  image) rejects the row.
- **Preference pairs** are two scored examples a row: columns `chosen.X`, `rejected.X` and `margin.X` (chosen −
  rejected). The two are not each other's neighbours in `knn_6`. Where both hold the whole conversation, the prompt is
  looked for in it.
- **Rows that `score` wrote** are read without their scores; only the columns that are missing are computed.
- **A message a row** (`oasst`): a row of an assistant's message is an example; one of a prompter's is read with the
  messages that answer it and goes to the rejects, having no response of its own.
"""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _shapes() -> Iterator[str]:
    yield "## Shapes\n"
    yield "| format | fields and their roles | what it is |"
    yield "|---|---|---|"
    for shape in SHAPES.values():
        fields = []
        for role, names in shape.fields.items():
            spelled = " or ".join(f"`{name}`" for name in names)
            fields.append(f"**{role}**: {spelled}" if role in shape.needs else f"{role}: {spelled}")
        yield f"| `{shape.name}` | {'; '.join(fields)} | {shape.about} |"
    yield "\nRoles in bold must be there for a row to have the shape.\n"


def _samples() -> Iterator[str]:
    yield "## One row of each\n"
    for name, title in TITLES.items():
        (path,) = FILES.glob(f"{name}.json*")
        reader = read_examples(path, fields=FieldOptions(unread="count"), on_reject=lambda _: None)
        *_, example = reader
        yield f"### {title}\n"
        yield f"`examples/formats/{path.name}`, format `{reader.formats[str(path)]}`:\n"
        yield f"```json\n{path.read_text(encoding='utf-8').rstrip()}\n```\n"
        sides = [("", example.turns)] if example.rejected is None else []
        if example.rejected is not None:
            sides = [("chosen: ", example.turns), ("rejected: ", example.rejected)]
        for side, turns in sides:
            spelled = " → ".join(f"{turn.role} {turn.text!r}" for turn in turns)
            yield f"{side}{spelled}\n"
        if unread := reader.unread[str(path)]:
            yield f"Not read: {', '.join(f'`{field}`' for field in unread)}.\n"


if __name__ == "__main__":
    main()
