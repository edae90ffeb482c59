"""Decides which texts go through which graphs for the indicators; roles that share a graph share the pass."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from instructmining.bundle import ROLES, Bundle, Role, RoleName
from instructmining.errors import RuleError
from instructmining.errors.arguments import shown
from instructmining.errors.names import no_such
from instructmining.indicators import INDICATORS, USUAL, CorpusIndicator, Indicator, roles_of
from instructmining.indicators.base import MEASURED_BY, Measurement, Question
from instructmining.rules import Rule
from instructmining.types import known_columns

# The turns of a row to embed: all, all but the assistant's, or the assistant's.
DocumentText: TypeAlias = Literal["document", "prompt", "response"]
TextKind: TypeAlias = Literal["conversation", "responses"] | DocumentText | Question

_TEXT_AND_OUTPUT: dict[Measurement, tuple[TextKind, str]] = {
    "conversation_nll": ("conversation", "nll"),
    "response_nll": ("responses", "nll"),
    "reward": ("conversation", "reward"),
    "embedding": ("document", "embedding"),
    "naturalness": ("naturalness", "yes"),
    "coherence": ("coherence", "yes"),
    "understandability": ("understandability", "yes"),
}


# A column that each role computes.
BY_ROLE: dict[RoleName, str] = {
    "perplexity": "perplexity",
    "reward": "reward",
    "embedding": "knn_6",
    "unieval": "naturalness",
}


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """One kind of text through one graph."""

    role: Role  # the role whose graph, tokenizer, template and limit are used
    text: TextKind
    measures: tuple[Measurement, ...]
    roles: tuple[RoleName, ...]  # the roles that use the outputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """The graph outputs needed."""
        return tuple(_TEXT_AND_OUTPUT[measure][1] for measure in self.measures)

    def only(self, needs: Collection[Measurement]) -> Stream:
        """Return the part of the stream that computes some measurements."""
        measures = tuple(measure for measure in self.measures if measure in needs)
        users = {MEASURED_BY[measure] for measure in measures}
        return replace(self, measures=measures, roles=tuple(role for role in self.roles if role in users))


@dataclass(frozen=True, slots=True)
class Plan:
    """Indicators in column order, and the streams that feed them."""

    indicators: tuple[Indicator, ...]
    streams: tuple[Stream, ...]
    needs: frozenset[Measurement]

    def only(self, columns: Collection[str]) -> Plan:
        """Return what columns need, through the same graphs; their roles are in this plan."""
        indicators = tuple(indicator for column, indicator in INDICATORS.items() if column in columns)
        needs = frozenset(measure for indicator in indicators for measure in indicator.needs)
        streams = (stream.only(needs) for stream in self.streams)
        return Plan(indicators, tuple(stream for stream in streams if stream.measures), needs)


def plan(
    bundle: Bundle,
    rule: Rule | None,
    indicators: Sequence[str],
    document: DocumentText = "document",
    kept: Collection[str] = (),
    roles: Collection[RoleName] = (),
) -> Plan:
    """Work out what must be computed.

    Args:
        bundle: the bundle with the roles.
        rule: its terms are computed too.
        indicators: further columns to compute.
        document: the turns of a row to embed.
        kept: columns that the rows already have, which are not computed.
        roles: further roles, to open for texts that are in no row; no column of the plan computes with them.

    Raises:
        RuleError: an indicator is not known.
        BundleError: the bundle lacks a role; the message says how to get one.
    """
    wanted = check_columns(rule, indicators)
    chosen = tuple(indicator for column, indicator in INDICATORS.items() if column in wanted.difference(kept))
    streams: list[Stream] = []
    for indicator in chosen:
        for measure in indicator.needs:
            if measure in MEASURED_BY:
                role = bundle.role(MEASURED_BY[measure], wanted_by=_asked_by(indicator.column, rule))
                _add(streams, role, measure, document)
    for name in roles:
        column = INDICATORS[BY_ROLE[name]]
        _add(streams, bundle.role(name, wanted_by="the option roles (--roles)"), column.needs[0], document)
    needs = frozenset(measure for indicator in chosen for measure in indicator.needs)
    return Plan(chosen, tuple(streams), needs)


def check_columns(rule: Rule | None, indicators: Sequence[str]) -> set[str]:
    """Return all columns to compute, given the right bundle.

    Raises:
        RuleError: one of them is no indicator.
    """
    wanted = set(indicators) | (set(rule.terms) if rule is not None else set())
    if unknown := sorted(wanted - set(INDICATORS)):
        of_rule = rule is not None and not set(unknown).isdisjoint(rule.terms)
        where = f"rule {rule.id!r}" if rule is not None and of_rule else "indicators"
        raise RuleError(f"{where}: {no_such('indicator', unknown, INDICATORS, listed=known_columns())}")
    return wanted


def indicator_names(text: str | Sequence[str], bundle: Bundle, *, neighbours: bool = True) -> list[str]:
    """Parse columns given as a list, as comma-separated text, or as "all": those that the bundle's roles allow.

    Args:
        text: the columns.
        bundle: with the roles.
        neighbours: whether "all" has those that need the neighbours of each row.

    Raises:
        RuleError: the value is neither a list of names nor text.
    """
    if not isinstance(text, str):
        names = list(text) if isinstance(text, Iterable) else [text]
        if wrong := [name for name in names if not isinstance(name, str)]:
            raise RuleError(f"indicators: {shown(wrong[0])}, wanted names of columns as a list or as text: 'mtld,ifd'")
        return names
    if text.strip() != "all":
        return [name.strip() for name in text.split(",") if name.strip()]
    possible = [column for column in USUAL if roles_of(column) <= bundle.roles.keys()]
    return [column for column in possible if neighbours or not isinstance(INDICATORS[column], CorpusIndicator)]


def role_names(text: str | Sequence[str]) -> list[RoleName]:
    """Parse roles given as a list, or as comma-separated text.

    Raises:
        RuleError: one is not known.
    """
    parts = [name.strip() for name in text.split(",")] if isinstance(text, str) else [str(name) for name in text]
    names = [name for name in parts if name]
    if unknown := [name for name in names if name not in ROLES]:
        raise RuleError(f"roles: {no_such('role', unknown, ROLES)}")
    return [role for role in ROLES if role in names]


def _asked_by(column: str, rule: Rule | None) -> str:
    return f"{column!r} (rule {rule.id!r})" if rule is not None and column in rule.terms else f"{column!r}"


def _add(streams: list[Stream], role: Role, measure: Measurement, document: DocumentText) -> None:
    """Add a measurement to the stream that computes its text anyway, or to a new one."""
    text = document if measure == "embedding" else _TEXT_AND_OUTPUT[measure][0]
    for number, stream in enumerate(streams):
        if stream.text == text and stream.role.shares == role.shares:
            if measure not in stream.measures:
                roles = tuple(dict.fromkeys([*stream.roles, role.name]))
                streams[number] = Stream(stream.role, text, (*stream.measures, measure), roles)
            return
    streams.append(Stream(role, text, (measure,), (role.name,)))
