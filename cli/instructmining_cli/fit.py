"""``instructmining fit``: a rule of one's own from fine-tuning runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from instructmining_cli.text_out import text_width


def fit(
    runs: Annotated[
        str,
        typer.Argument(
            metavar="RUNS.csv", help="A line a fine-tuning run: loss, and the indicators' means of the set trained on."
        ),
    ],
    out: Annotated[str, typer.Option("-o", "--out", help="The rule file, which score --rule takes.")],
    terms: Annotated[
        str | None, typer.Option(help="Columns to consider, comma-separated; by default every indicator there.")
    ] = None,
    choose: Annotated[
        Literal["loo", "adjusted-r2", "paper", "all"],
        typer.Option(
            help="Which of them the rule takes: the subset of least leave-one-out error, that of highest adjusted R2, "
            "the paper's way (highest R2, then p-values), or all."
        ),
    ] = "loo",
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Resamples of the runs for the bootstrap intervals; 0: none.")
    ] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
    id: Annotated[str | None, typer.Option(help="The rule's name; by default that of OUT.")] = None,
    reward_model: Annotated[
        str | None, typer.Option(help="Source id of the model behind the column reward; kept in the rule.")
    ] = None,
    plot: Annotated[str | None, typer.Option(help="Draw the residuals into this file, .svg.")] = None,
    json: Annotated[
        str | None, typer.Option(help="Write all figures to this file; - writes them to standard output, no report.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT and the files of --plot and --json.")
    ] = False,
) -> None:
    """Estimate a rule: ordinary least squares of the log evaluation loss on set means, over fine-tuning runs.

    Needs the extra [fit]. The report goes to standard output, warnings to standard error and into the rule.
    """
    import orjson

    from instructmining.fitting import fit as fit_runs
    from instructmining.journal import write_whole
    from instructmining_cli.fit_report import FitReport
    from instructmining_cli.residual_plot import drawing

    if plot is not None and not plot.endswith(".svg"):
        raise typer.BadParameter(f"--plot {plot}: wanted a name ending in .svg")
    files = [out, *(file for file in (plot, json) if file not in {None, "-"})]
    _check([str(file) for file in files], runs, overwrite=overwrite)
    found = fit_runs(
        runs,
        terms=None if terms is None else [term.strip() for term in terms.split(",")],
        choose=choose,
        bootstrap=bootstrap,
        seed=seed,
        rule_id=id or Path(out).stem,
        reward_model=reward_model,
    )
    report = FitReport(found, text_width(None))
    figures = orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    if plot is not None:
        write_whole(Path(plot), drawing(found).encode())
    if json not in {None, "-"}:
        write_whole(Path(str(json)), figures)
    found.rule.save(out, overwrite=overwrite)
    typer.echo(figures.decode() if json == "-" else report.text(), nl=json != "-")
    for warning in found.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"rule {found.rule.id!r}: {out}", err=True)


def _check(files: list[str], runs: str, *, overwrite: bool) -> None:
    """Refuse places for the results before the work.

    Raises:
        BadParameter: two are the same.
        OutputError: one is the runs file, cannot be a file, or is one already.
    """
    from instructmining.errors import OutputError

    if len({Path(file).absolute() for file in files}) < len(files):
        raise typer.BadParameter("OUT, --plot and --json are to be different files")
    for name in files:
        file = Path(name)
        if file.exists() and Path(runs).exists() and file.samefile(runs):
            raise OutputError(f"{name}: is the runs file itself; name another file")
        if file.is_dir():
            raise OutputError(f"{name}: is a folder; name a file")
        if file.exists() and not overwrite:
            raise OutputError(f"{name}: exists; give --overwrite to replace it")
        if not file.parent.is_dir():
            raise OutputError(f"{name}: its folder {file.parent} does not exist")
