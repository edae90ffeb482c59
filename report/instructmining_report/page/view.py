"""Computes and draws everything that the page shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from instructmining.rules import Rule
from instructmining.scored.describe import Description
from instructmining_report.drawing import plots
from instructmining_report.drawing.numbers import fixed, number, percent
from instructmining_report.figures.cuts import PERCENTS, SHOWN, Cuts, cuts_of
from instructmining_report.figures.densities import Density, by_length, paired_columns
from instructmining_report.figures.differences import SetDifference, differences_of
from instructmining_report.figures.distributions import Distribution, distributions
from instructmining_report.figures.examples import chosen_rows
from instructmining_report.figures.grouping import Grouping, group_field, grouping_of
from instructmining_report.figures.missing import Missing, missing_of
from instructmining_report.figures.ordering import Order, order_of
from instructmining_report.figures.repeats import Repeats, repeats_of
from instructmining_report.figures.terms import TermFigures, terms_of
from instructmining_report.gathering.scored_set import ScoredSet
from instructmining_report.options import ReportOptions
from instructmining_report.page.cards import Card, card_of, tokens_of
from instructmining_report.page.examples import beginnings, shown_examples
from instructmining_report.page.rendering import render
from instructmining_report.page.visible import plain
from instructmining_report.page.words import counted

MOST_SETS = 8  # colours that can be told apart
_SHADES = 5  # of a correlation, on either side of 0
_SHOWN_REJECTS = 600  # bytes of a rejected row


@dataclass(frozen=True, slots=True)
class PageContent:
    """What a page is made of."""

    sets: tuple[ScoredSet, ...]  # the first is the whole set
    descriptions: tuple[Description, ...]
    rule: Rule | None  # whose terms the first set has
    options: ReportOptions
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Histogram:
    """A column's plot with what stands around it."""

    distribution: Distribution
    svg: Markup
    names: Sequence[tuple[str, int]]  # of the sets, and the numbers of their colours
    beyond: int  # rows beyond the ends of the axis


def page_of(content: PageContent) -> bytes:
    """Return the page.

    Raises:
        InputError: a file changed since it was read.
        SelectionError: the column that the rows are ordered by is not there.
    """
    sets, described, options = content.sets, content.descriptions, content.options
    first = sets[0]
    order = order_of(first, options)
    field = group_field(sets, options.group_by)
    groups = first.groups[field] if field is not None else None
    missing = [missing_of(one) for one in sets]
    repeats = [repeats_of(one) for one in sets]
    grouping = (
        grouping_of(sets, field, order.column if order else None, named=options.group_by is not None)
        if field is not None
        else None
    )
    cuts = cuts_of(first, order, groups) if order is not None and len(order.rows) else None
    terms = terms_of(first, content.rule) if content.rule is not None else ()
    lengths = by_length(first.store, described[0], first.parts, order.column) if order is not None else ()
    pairs = paired_columns(first.store, described[0])
    chosen = chosen_rows(order, options.examples) if order is not None and options.texts else ()
    found = distributions(sets, described)
    differences = differences_of(sets)
    cards = [card_of(*one, place) for place, one in enumerate(zip(sets, described, missing, strict=True))]
    values: dict[str, object] = {
        "headline": _headline(content, order, missing[0], repeats[0]),
        "others": list(_others(content, differences, order)),
        "labels": [one.label for one in sets],
        "sets": sets,
        "described": described,
        "cards": cards,
        "cautions": _cautions(cards),
        "rule": content.rule,
        "remarks": [_without_folders(remark, sets) for remark in content.remarks],
        "order": order,
        "order_words": None if order is None else _order_words(order),
        "differences": differences,
        "distributions": list(_histograms(found, sets)),
        "cuts": cuts,
        "cut_plot": None if cuts is None else _cut_plot(cuts),
        "shown_cuts": [(percent, PERCENTS.index(percent)) for percent in SHOWN],
        "kept_columns": [] if cuts is None else _compared(cuts),
        "terms": [(figures, _term_plot(figures, at)) for at, figures in enumerate(terms)],
        "grouping": grouping,
        "group_plot": None if grouping is None or order is None else _group_plot(grouping, order),
        "lengths": [_density(density, f"length-{at}") for at, density in enumerate(lengths)],
        "pairs": pairs,
        "pair_plots": [_density(density, f"pair-{at}") for at, density in enumerate(pairs.shown)],
        "correlation_rows": list(_correlations(described[0])),
        "repeats": repeats,
        "cluster_texts": _cluster_texts(first, repeats[0]) if options.texts else {},
        "near_dropped": [_near_dropped(one) for one in sets],
        "missing": missing,
        "texts": options.texts,
        "examples": shown_examples(first, chosen, content.rule if content.rule is not None else None),
        "example_columns": _ordered_first(first.columns, order),
        "show_bytes": _SHOWN_REJECTS,
    }
    return render(values, _data(cuts))


def _without_folders(text: str, sets: Sequence[ScoredSet]) -> str:
    """Return a text with the paths of the files cut to their names: a page may be shown to others."""
    for name in sorted((one.source.name for one in sets), key=len, reverse=True):
        text = text.replace(name, Path(name).name)
    return text


def _headline(content: PageContent, order: Order | None, missing: Missing, repeats: Repeats) -> str:
    """Return the sentence that matters most."""
    first, described = content.sets[0], content.descriptions[0]
    if not first.rows:
        return f"{first.label} has no rows."
    tokens = tokens_of(first, described)
    parts = [counted(first.rows, "row") + (f" with {tokens:,} tokens" if tokens is not None else "")]
    if order is not None and (summary := described.columns.get(order.column)) is not None:
        if summary.median is None:
            parts.append(f"no row has a value of {order.column}")
        else:
            spread = f"{number(summary.percentile_5)} to {number(summary.percentile_95)}"
            parts.append(f"the median {order.column} is {number(summary.median)}, nine in ten rows have {spread}")
    lacks = []
    if missing.truncated_rows:
        lacks.append(f"{counted(missing.truncated_rows, 'row was', 'rows were')} truncated")
    if repeats.whole.extra:
        lacks.append(f"{counted(repeats.whole.extra, 'row repeats', 'rows repeat')} another one")
    if missing.rejected:
        lacks.append(f"{counted(missing.rejected, 'row')} could not be scored")
    sentence = "; ".join(parts)
    return f"{sentence}. {', '.join(lacks)}.".replace(". .", ".") if lacks else f"{sentence}."


def _ordered_first(columns: Sequence[str], order: Order | None) -> list[str]:
    """Return the columns with the one that orders the rows first."""
    return list(columns if order is None else dict.fromkeys((order.column, *columns)))


def _cautions(cards: Sequence[Card]) -> list[tuple[list[str], str]]:
    """Return each caution once, with the sets that it is about."""
    found: dict[str, list[str]] = {}
    for card in cards:
        for text in card.cautions:
            found.setdefault(text, []).append(card.label)
    return [(labels, text) for text, labels in found.items()]


def _others(content: PageContent, differences: Sequence[SetDifference], order: Order | None) -> Iterator[str]:
    """Yield a sentence on each further set: how much of the first it holds, and how far its order moved."""
    rows = content.sets[0].rows
    for other, one in zip(content.sets[1:], differences, strict=True):
        text = f"{one.label} has {counted(other.rows, 'row')}"
        if rows and not one.entered:
            text += f", {percent(one.common / rows, 0)} of {content.sets[0].label}"
        moved = one.columns[order.column].standardized if order is not None and order.column in one.columns else None
        if order is not None and moved is not None:
            way = (
                "the same"
                if fixed(moved) == "0.00"
                else f"{fixed(abs(moved))} standard deviations {'lower' if moved < 0 else 'higher'}"
            )
            text += f"; its mean {order.column} is {way}"
        yield f"{text}."


def _order_words(order: Order) -> str:
    how = "largest first" if order.descending else "smallest first"
    why = ", since the file has no prediction" if order.chosen_here else ""
    return f"by {order.column}, {how}{why}"


def _histograms(found: Sequence[Distribution], sets: Sequence[ScoredSet]) -> Iterator[Histogram]:
    places = {one.label: place for place, one in enumerate(sets)}
    for at, distribution in enumerate(found):
        medians = "; ".join(
            f"{one.label}: median {number(one.summary.median)}, "
            f"middle half {number(one.summary.percentile_25)} to {number(one.summary.percentile_75)}"
            for one in distribution.sets
        )
        scale = " on a logarithmic axis" if distribution.axis is not None and distribution.axis.log else ""
        label = plain(f"Histogram of {distribution.column}{scale}. {medians}.")
        own = [places[one.label] for one in distribution.sets]
        yield Histogram(
            distribution,
            plots.histogram(distribution, f"histogram-{at}", label, own),
            [(one.label, place + 1) for one, place in zip(distribution.sets, own, strict=True)],
            sum(one.beyond for one in distribution.sets),
        )


def _density(density: Density, name: str) -> tuple[Density, Markup]:
    label = f"{density.up} against {density.across}, {density.rows:,} rows, stronger where there are more"
    if density.spearman is not None:
        label += f"; rank correlation {density.spearman:.2f}"
    titles = tuple(
        f"{column}{' (log)' if axis.log else ''}"
        for column, axis in ((density.across, density.across_axis), (density.up, density.up_axis))
    )
    return density, plots.density(density, name, label, (titles[0], titles[1]))


def _term_plot(figures: TermFigures, at: int) -> Markup:
    names = [term.column for term in figures.terms]
    around = [[value - term.mean for value in term.quantiles] for term in figures.terms]
    label = "; ".join(f"{term.column}: {percent(term.share)} of the spread" for term in figures.terms)
    return plots.intervals(names, around, f"terms-{at}", f"What each term adds around its mean. {label}", zero=True)


def _group_plot(grouping: Grouping, order: Order) -> Markup:
    groups = [group for group in grouping.groups if group.quantiles]
    if not groups:
        return Markup("")
    label = plain("; ".join(f"{group.name}: median {number(group.quantiles[2])}" for group in groups[:10]))
    return plots.intervals(
        [plain(group.name) for group in groups],
        [group.quantiles for group in groups],
        "groups",
        f"{order.column} by {plain(grouping.field)}. {label}",
    )


def _cut_plot(cuts: Cuts) -> Markup:
    ends = f"from {number(cuts.border[0])} at 1 % to {number(cuts.border[-1])} at 100 %"
    return plots.cut_curve(cuts, "cut", f"{cuts.column} of the last row kept, by the share kept: {ends}", cuts.column)


def _correlations(described: Description) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Yield the lines of the table: cells with text, shade and the pair in words; Pearson above, Spearman below."""
    names = list(described.columns)
    for row, name in enumerate(names):
        cells = []
        for place, other in enumerate(names):
            kind = "Pearson" if place > row else "Spearman"
            value = (described.pearson if place > row else described.spearman)[name][other]
            if place == row:
                cells.append(("", "same", ""))
            elif value is None:
                cells.append(("–", "none", f"{kind}, {name} and {other}: not defined"))
            else:
                shade = round(value * _SHADES)
                text = fixed(value)
                cells.append((text, f"{'n' if shade < 0 else 'p'}{abs(shade)}", f"{kind}, {name} and {other}: {text}"))
        yield name, cells


def _cluster_texts(one: ScoredSet, repeats: Repeats) -> dict[int, object]:
    clusters = [*repeats.whole.largest, *(repeats.prompts.largest if repeats.prompts is not None else ())]
    return dict(beginnings(one, sorted({cluster.first for cluster in clusters}))) if clusters else {}


def _near_dropped(one: ScoredSet) -> int | None:
    """Return the near duplicates that the selection dropped; None where it was not asked to."""
    from_file = one.records.selection.get("counts")
    left_out = from_file.get("left_out") if isinstance(from_file, dict) else None
    if not isinstance(left_out, dict):
        return None
    found = [rows for reason, rows in left_out.items() if reason.startswith("near duplicate") and isinstance(rows, int)]
    return sum(found) if found else None


def _compared(cuts: Cuts) -> list[str]:
    """Return the columns whose means are shown at each cut: of margins only the one that orders the rows."""
    return [column for column in cuts.means if "margin." not in column or column == cuts.column]


def _data(cuts: Cuts | None) -> dict[str, object]:
    """Return the figures for the script: numbers alone, in the order of the rows of the page's tables."""
    if cuts is None:
        return {}
    return {
        "candidates": cuts.candidates,
        "rows": cuts.rows,
        "border": cuts.border,
        "tokens": cuts.tokens,
        "means": [
            [None if value is None else float(f"{value:.6g}") for value in cuts.means[column]]
            for column in _compared(cuts)
        ],
        "deviations": [
            [None if value is None else float(f"{value:.4g}") for value in cuts.deviations[column]]
            for column in _compared(cuts)
        ],
        "groups": list(cuts.groups.values()),
    }
