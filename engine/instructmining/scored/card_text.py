"""Writes the card of a data set: README.md with YAML at its head, as hubs read it.

All that a user gives or a file holds is escaped: in YAML as JSON text, in Markdown as code or with its marks escaped.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from instructmining.reading.file_kinds import DELIMITERS
from instructmining.reading.values import dumps
from instructmining.scored.card_facts import FileFacts

_SIZES = (("n<1K", 10**3), ("1K<n<10K", 10**4), ("10K<n<100K", 10**5), ("100K<n<1M", 10**6), ("1M<n<10M", 10**7))
_LARGER = (("10M<n<100M", 10**8), ("100M<n<1B", 10**9), ("1B<n<10B", 10**10), ("10B<n<100B", 10**11))
_MARKS = re.compile(r"([\\`*_\[\]|~]|^[#+-]|(?<=^\d)[.)])")  # what means something to Markdown, some only at the start
_QUANTILES = ("mean", "minimum", "percentile_5", "percentile_25", "median", "percentile_75", "percentile_95", "maximum")
_HEADINGS = ("mean", "min", "5 %", "25 %", "median", "75 %", "95 %", "max")

Yaml: TypeAlias = "str | Sequence[Yaml] | Mapping[str, Yaml]"


@dataclass(frozen=True, slots=True)
class CardOptions:
    """What only the user knows; what is not given is left out."""

    name: str | None = None
    license: str | None = None
    languages: Sequence[str] = ()


def card_text(files: Sequence[FileFacts], options: CardOptions, names: Sequence[str]) -> str:
    """Return the card.

    Args:
        files: what is known about each file.
        options: what the user says.
        names: path of each file, from the card's folder.
    """
    head = front_matter(files, options, names)
    parts = [f"# {plain(options.name or 'Selected instruction data')}", *_body(files, names)]
    return f"---\n{_yaml(head)}---\n\n" + "\n\n".join(parts) + "\n"


def front_matter(files: Sequence[FileFacts], options: CardOptions, names: Sequence[str]) -> dict[str, Yaml]:
    """Return the head of the card."""
    head: dict[str, Yaml] = {}
    if options.license:
        head["license"] = options.license
    if options.languages:
        head["language"] = list(options.languages)
    if options.name:
        head["pretty_name"] = options.name
    head["task_categories"] = ["text-generation"]
    head["size_categories"] = [_size(sum(one.rows for one in files))]
    pairs = ["preference-data"] if any(one.is_of_pairs for one in files) else []
    head["tags"] = ["instructmining", "instruction-tuning", *pairs]
    head["configs"] = [
        {"config_name": config, "data_files": [{"split": "train", "path": path}]}
        for config, path in zip(_configs(names), names, strict=True)
    ]
    return head


def unknown_of(files: Sequence[FileFacts], options: CardOptions) -> list[str]:
    """Return what the card leaves out since it is not known, as sentences."""
    asked = [
        ("no license is named (--license): nobody may use the rows without one", options.license),
        ("no language is named (--language)", options.languages),
        ("no name is given (--name)", options.name),
    ]
    kinds = {_kind(one.path) for one in files}
    mixed = f"the files are of several kinds ({', '.join(sorted(kinds))}), and hubs load one kind; write all alike"
    return [
        *(said for said, given in asked if not given),
        *([mixed] if len(kinds) > 1 else []),
        *(line for one in files for line in one.unknown),
    ]


def _body(files: Sequence[FileFacts], names: Sequence[str]) -> Iterator[str]:
    rows = sum(one.rows for one in files)
    what = "preference pair" if all(one.is_of_pairs for one in files) else "row"
    how = [
        done
        for done, is_so in (
            ("scored", any(one.run or one.columns for one in files)),
            ("selected", any(one.selection for one in files)),
        )
        if is_so
    ]
    done = f", {' and '.join(how)} with InstructMining" if how else ""
    yield f"{_count(rows, what)} for fine-tuning language models{done}."
    yield "<!-- Only you know what these rows are, who wrote them, and what they are not for: write it here. -->"
    for one, name, config in zip(files, names, _configs(names), strict=True):
        if len(files) > 1:
            yield f"## {plain(config)}"
        level = "#" * (2 + (len(files) > 1))
        yield from _file(one, name, level)
    yield "## Loading"
    for one, name, config in zip(files, names, _configs(names), strict=True):
        yield _loading(one, name, config)


def _file(one: FileFacts, name: str, level: str) -> Iterator[str]:
    fields = ", ".join(map(code, one.fields[:20])) + (" and more" if len(one.fields) > 20 else "")
    known = f" in the format {code(one.format)}" if one.format else ""
    yield f"{code(name)} holds {_count(one.rows, 'row')}{known}. Fields of the first row: {fields or 'none'}."
    for said in one.unknown:
        yield f"<!-- {_comment(said)} -->"
    if one.run:
        yield f"{level} How rows were scored"
        yield from _scoring(one)
    if one.selection:
        yield f"{level} How rows were selected"
        yield from _selection(one.selection)
    if one.columns:
        yield f"{level} Scores of these rows"
        yield _figures(one)
    cautions = list(_cautions(one))
    if cautions:
        yield f"{level} What to know before use"
        yield "\n".join(f"- {caution}" for caution in cautions)


def _scoring(one: FileFacts) -> Iterator[str]:
    if one.rule:
        provenance = [f"- {plain(str(key))}: {plain(str(value))}" for key, value in one.provenance.items()]
        origin = " It comes with InstructMining:" if provenance else " Where it comes from is not in the run file."
        yield (
            f"The rule {code(str(one.rule.get('id')))} predicts the natural logarithm of the loss after fine-tuning; "
            f"lower is better. Its SHA-256 is {code(str(one.rule.get('digest')))}.{origin}"
        )
        if provenance:
            yield "\n".join(provenance)
    roles = one.bundle.get("roles")
    if isinstance(roles, Mapping) and roles:
        name, digest = (code(str(one.bundle.get(key))) for key in ("name", "digest"))
        yield f"Models of the bundle {name} (SHA-256 {digest}):"
        lines = ["| role | model | revision | license | precision |", "|---|---|---|---|---|"]
        for role, facts in roles.items():
            keys = ("id", "revision", "licence", "precision")
            cells = [code(str(facts[key])) if isinstance(facts, Mapping) and facts.get(key) else "" for key in keys]
            lines.append(f"| {plain(str(role))} | {' | '.join(cells)} |")
        yield "\n".join(lines)
    columns = one.run.get("settings", {}).get("columns") if isinstance(one.run.get("settings"), Mapping) else None
    if isinstance(columns, Sequence) and columns:
        sides = "; of both responses of a pair, and chosen − rejected" if one.is_of_pairs else ""
        here = "" if one.columns else ". This file does not have them"
        yield f"Columns that were computed: {', '.join(code(str(column)) for column in columns)}{sides}{here}."


def _selection(selection: Mapping[str, Any]) -> Iterator[str]:
    choice = selection.get("choice")
    choice = choice if isinstance(choice, Mapping) else {}
    by = code(str(selection.get("by")))
    lines = [f"- sorted by {by}, the {'largest' if selection.get('descending') else 'smallest'} first"]
    for name, said in (
        ("top", "rows kept at most"),
        ("fraction", "share of the candidates kept"),
        ("tokens", "tokens in total at most"),
        ("max_loss", "largest value kept"),
        ("group_by", "rows grouped by"),
    ):
        if choice.get(name) is not None:
            lines.append(f"- {said}: {code(str(choice[name]))}")
    lines += [f"- condition: {code(str(condition))}" for condition in choice.get("where") or ()]
    quotas = choice.get("quotas")
    if isinstance(quotas, Mapping) and quotas:
        lines.append(f"- rows of a group: {', '.join(f'{code(str(group))} {rows}' for group, rows in quotas.items())}")
    distinct = choice.get("distinct")
    if isinstance(distinct, Mapping):
        lines.append(f"- near duplicates left out: closer than {distinct.get('distance')} to a better row")
    converted = selection.get("converted")
    if isinstance(converted, Mapping):
        lines.append(f"- written in the shape {code(str(converted.get('as')))}")
    yield "\n".join(lines)
    counts = selection.get("counts")
    counts = counts if isinstance(counts, Mapping) else {}
    table = ["| | rows |", "|---|---|", f"| scored | {_number(counts.get('rows'))} |"]
    left_out = counts.get("left_out")
    reasons = left_out.items() if isinstance(left_out, Mapping) else ()
    table += [f"| left out: {code(str(reason))} | {_number(rows)} |" for reason, rows in reasons]
    yield "\n".join([*table, f"| kept | {_number(counts.get('kept'))} |"])


def _figures(one: FileFacts) -> str:
    lines = [f"| column | null | {' | '.join(_HEADINGS)} |", "|---" * (len(_HEADINGS) + 2) + "|"]
    for name, summary in one.columns.items():
        values = [getattr(summary, key) for key in _QUANTILES]
        cells = ["" if value is None else f"{value:.4g}" for value in values]
        lines.append(f"| {code(name)} | {summary.nulls:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cautions(one: FileFacts) -> Iterator[str]:
    if one.rule:
        yield (
            "The prediction is made from a few measurements of a row by a rule that was fitted to other data and "
            "another model. It says nothing about truth, safety, bias or private data."
        )
    for text in (one.run.get("caution"), one.bundle.get("note")):
        if text:
            yield plain(_sentence(str(text)))
    if one.truncated:
        yield f"In {_count(one.truncated, 'row')} a model saw only a part of the text: it was longer than its limit."
    counts = one.run.get("counts")
    if isinstance(counts, Mapping) and counts.get("rows_rejected"):
        yield f"{_count(counts['rows_rejected'], 'row')} of the input could not be read or scored, and are not here."
    for remark in one.selection.get("remarks") or ():
        yield plain(_sentence(str(remark)))


def _loading(one: FileFacts, name: str, config: str) -> str:
    path, kind = _literal(name), _kind(name)
    tab = ', sep="\\t"' if ".tsv" in name else ""
    pandas = {
        "parquet": f"pandas.read_parquet({path})",
        "json": f"pandas.read_json({path}{'' if name.endswith('.json') else ', lines=True'})",
        "csv": f"pandas.read_csv({path}{tab})",
    }[kind]
    lines = [
        f"# {_comment(config)}",
        "from datasets import load_dataset",
        f'rows = load_dataset("{kind}", data_files={path}, split="train"{tab})',
        "",
        "import pandas",
        f"table = {pandas}",
    ]
    if one.format in {"messages", "preference"} and kind == "csv":
        lines += ["", "# The turns are JSON text in this kind of file; trainers read them from .jsonl or .parquet."]
    elif one.format == "messages":
        lines += ["", '# TRL: SFTTrainer(..., train_dataset=rows.select_columns(["messages"]))']
    elif one.format == "preference":
        lines += ["", '# TRL: DPOTrainer(..., train_dataset=rows.select_columns(["prompt", "chosen", "rejected"]))']
    return "```python\n" + "\n".join(lines) + "\n```"


def _kind(name: str) -> str:
    """Return the kind of a file as ``datasets`` names it."""
    if name.endswith(".parquet"):
        return "parquet"
    return "csv" if any(suffix in name for suffix in DELIMITERS) else "json"


def code(text: str) -> str:
    """Return a text as code in Markdown, also inside a table; line breaks become spaces."""
    said = _one_line(text).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", said)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if said[:1] == "`" or said[-1:] == "`" or not said.strip() else ""
    return f"{fence}{pad}{said}{pad}{fence}"


def plain(text: str) -> str:
    """Return a text whose characters mean nothing in Markdown and HTML; line breaks become spaces."""
    said = _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKS.sub(r"\\\1", said)


def _comment(text: str) -> str:
    """Return a text for a comment of HTML or Python."""
    return _one_line(text).replace("--", "–").replace(">", "")


def _one_line(text: str) -> str:
    """Return a text without line breaks, control characters and marks that turn the direction of writing."""
    return "".join(
        " " if unicodedata.category(mark) in {"Cc", "Zl", "Zp"} else mark
        for mark in text
        if unicodedata.category(mark) not in {"Cf", "Cs"}
    )


def _literal(text: str) -> str:
    """Return a text as a literal of Python."""
    return repr(_one_line(text)).replace("`", "\\x60")


def _yaml(value: Mapping[str, Yaml], indent: str = "") -> str:
    lines = []
    for name, inner in value.items():
        if isinstance(inner, str):
            lines.append(f"{indent}{name}: {_scalar(inner)}\n")
            continue
        lines.append(f"{indent}{name}:\n")
        for item in inner if not isinstance(inner, Mapping) else [inner]:
            if isinstance(item, Mapping):
                block = _yaml(item, f"{indent}  ")
                lines.append(f"{indent}- {block.removeprefix(f'{indent}  ')}")
            else:
                lines.append(f"{indent}- {_scalar(str(item))}\n")
    return "".join(lines)


def _scalar(text: str) -> str:
    """Return a text as YAML: JSON's text is one of its forms, but for characters that YAML wants escaped."""
    said = dumps("".join(mark for mark in text if unicodedata.category(mark) != "Cs")).decode()
    return "".join(f"\\u{ord(mark):04x}" if _is_special(mark) else mark for mark in said)


def _is_special(mark: str) -> bool:
    return "\x7f" <= mark <= "\x9f" or mark in "\u2028\u2029\ufeff\ufffe\uffff"


def _configs(names: Sequence[str]) -> list[str]:
    """Return a name for each file's configuration; the one of a single file is the default."""
    if len(names) == 1:
        return ["default"]
    stems = [re.sub(r"[^A-Za-z0-9_-]+", "_", name.rpartition("/")[2].partition(".")[0]) or "rows" for name in names]
    return [stem if stems.count(stem) == 1 else f"{stem}_{number + 1}" for number, stem in enumerate(stems)]


def _size(rows: int) -> str:
    return next((name for name, limit in (*_SIZES, *_LARGER) if rows < limit), "100B<n<1T")


def _count(rows: int, word: str) -> str:
    return f"{rows:,} {word}{'s' * (rows != 1)}"


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "not known"


def _sentence(text: str) -> str:
    """Return a message as a sentence; one that begins with the name of a file keeps it."""
    start = text[:1].upper() if text.partition(" ")[0].isalpha() else text[:1]
    return f"{start}{text[1:]}{'' if text.endswith('.') else '.'}"
