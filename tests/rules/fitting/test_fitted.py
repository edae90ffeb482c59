from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from balanced_html import read_html
from paths import ROOT

from instructmining import fit
from instructmining.rules.fitting import Fit
from instructmining_cli.reports.fit_report import FitReport


@pytest.fixture(scope="module")
def found() -> Fit:
    return fit(ROOT / "examples" / "runs.csv", bootstrap=50, terms=["reward", "mtld", "understandability"])


def test_a_fit_shows_the_numbers_of_its_report_as_html(found: Fit) -> None:
    read = read_html(found._repr_html_())
    report = FitReport(found).text()
    origin, coefficients, quality, subsets = read.tables
    assert [row[0] for row in origin] == ["runs", "considered", "chosen by"]
    assert [row[0].split(" ")[0] for row in coefficients] == ["", "intercept", *found.rule.terms]
    assert len(subsets) == 6
    said = [cell for table in (origin, coefficients, quality, subsets) for row in table for cell in row[1:]]
    assert len(said) > 60
    assert [cell for cell in said if cell not in report] == []
    assert [label for label, _ in quality if label not in report] == []
    assert str(found.farthest()) in report
    assert str(found.farthest()) in read.text
    assert all(f"warning: {warning}" in read.text for warning in found.warnings)
    assert read.elements.count("circle") == 129


def test_names_of_runs_and_terms_are_escaped_and_infinite_figures_are_words(found: Fit) -> None:
    name = "<img src=x onerror=alert(1)>\u202e"
    runs = replace(found.runs, labels=(name,) * 129, origin=dict(found.runs.origin, file=name))
    strange = replace(
        found,
        runs=runs,
        considered=(name,),
        quality=replace(found.quality, loo_r2=-math.inf, loo_error=math.nan, nested_loo_r2=None),
        coefficients=(replace(found.coefficients[0], name=name, vif=math.inf, bootstrap_interval=None),),
        residuals=np.full(129, np.nan),
        warnings=(name,),
    )
    read = read_html(strange._repr_html_())
    assert "img" not in read.elements
    assert read.text.count("<img src=x onerror=alert(1)>\\u202e") == 1 + 1 + 1 + 3 + 1  # no point: none is finite
    assert read.tables[1][2][0] == "<img src=x onerror=alert(1)>\\u202e"
    assert read.tables[1][2][6:] == ["", "inf", ""]
    assert ["leave-one-out R2", "-inf, these terms refitted without each run"] in read.tables[2]
    assert ["leave-one-out error", "nan of log loss, root mean square"] in read.tables[2]
    assert "circle" not in read.elements
