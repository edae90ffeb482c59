"""``instructmining export``: models to a bundle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from instructmining.errors import ExportError

if TYPE_CHECKING:
    from instructmining.bundle import RoleName

_MODEL = "an id on the Hugging Face hub, or a folder with the same files."


def export(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the bundle; roles that it has already stay.")],
    preset: Annotated[
        str | None, typer.Option(help="A set of models: demo, paper-v1 or paper-v3; single roles can be given instead.")
    ] = None,
    reward: Annotated[str | None, typer.Option(help=f"Reward model: {_MODEL}")] = None,
    perplexity: Annotated[str | None, typer.Option(help=f"Causal language model: {_MODEL}")] = None,
    embedding: Annotated[str | None, typer.Option(help=f"Sentence encoder: {_MODEL}")] = None,
    unieval: Annotated[str | None, typer.Option(help=f"UniEval T5: {_MODEL}")] = None,
    precision: Annotated[
        str, typer.Option(help="fp32; fp16 for CUDA; int8 for the CPU. Each has its own bounds in the gate.")
    ] = "fp32",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the one model on the hub.")] = None,
    only: Annotated[str | None, typer.Option(help="Of a preset's models, only this role.")] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=16, help="Longest text of a role; the model's own limit, at most 2048, by default."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace roles that the bundle has.")] = False,
) -> None:
    """Write a bundle of ONNX graphs that score runs without PyTorch; each is proved equal to its model first.

    demo: SmolLM2-135M-Instruct, all-MiniLM-L6-v2 and a small reward head, from weights installed with pip.
    paper-v1, paper-v3: the models of the paper's rules, from the hub.
    """
    from instructmining.bundle import ROLES

    os.environ.setdefault("TQDM_DISABLE", "1")  # transformers' bars; the steps are said by us
    given = {"reward": reward, "perplexity": perplexity, "embedding": embedding, "unieval": unieval}
    models: dict[RoleName, str] = {role: model for role in ROLES if (model := given[role]) is not None}
    try:
        from instructmining_export.exporting import PRESETS, export_bundle
        from instructmining_export.graphs.tape import PRECISIONS
        from instructmining_export.roles import Settings
    except ModuleNotFoundError as error:
        raise ExportError(f"{error.name} is not installed; pip install 'instructmining[export]'") from error
    chosen = next((name for name in PRECISIONS if name == precision), None)
    if chosen is None:
        raise typer.BadParameter(f"precision {precision!r}; wanted one of {', '.join(PRECISIONS)}")
    settings = Settings(chosen, max_tokens, lambda text: typer.echo(text, err=True))
    if preset == "demo":
        if models or only or revision:
            raise typer.BadParameter("the preset demo is a whole; give it without models, --only and --revision")
        _export_demo(out, settings, overwrite=overwrite)
        return
    default_rule = None
    if preset is not None:
        if preset not in PRESETS:
            raise typer.BadParameter(f"unknown preset {preset!r}; known: demo, {', '.join(PRESETS)}")
        models = {**PRESETS[preset].models, **models}
        default_rule = PRESETS[preset].rule
    if only is not None:
        if only not in models:
            raise typer.BadParameter(f"--only {only!r}; the roles given are {', '.join(models) or 'none'}")
        models = {role: model for role, model in models.items() if role == only}
    if not models:
        raise typer.BadParameter("nothing to export; give --preset, or a model for a role such as --reward")
    if revision is not None and len([model for model in models.values() if not Path(model).is_dir()]) != 1:
        raise typer.BadParameter("--revision names a commit of one model; export others one at a time (--only ROLE)")
    export_bundle(
        out, models, settings=settings, revision=revision or "main", overwrite=overwrite, default_rule=default_rule
    )
    _say_result(out)


def _export_demo(out: Path, settings: object, *, overwrite: bool) -> None:
    """The demo bundle: a copy of the cached one, or built here where it differs from that in precision or limits."""
    from instructmining_cli.demo_bundle import demo_bundle
    from instructmining_export.demo.preset import export_demo
    from instructmining_export.roles import Settings

    assert isinstance(settings, Settings)
    if settings.precision == "fp32" and settings.max_tokens is None:
        _copy(demo_bundle(settings.report), out, overwrite=overwrite)
    else:
        export_demo(out, overwrite=overwrite, settings=settings)
    _say_result(out)


def _copy(bundle: Path, out: Path, *, overwrite: bool) -> None:
    import shutil

    if out.exists() and not overwrite:
        raise ExportError(f"{out}: exists; give --overwrite to replace it")
    partial = out.with_name(f"{out.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(bundle, partial)
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    except OSError as error:
        raise ExportError(f"{out}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _say_result(out: Path) -> None:
    """The bundle's roles with the figures of their gate."""
    from instructmining.bundle import Bundle

    bundle = Bundle.open(out)
    for name, role in bundle.roles.items():
        size = sum(Path(file).stat().st_size for file in role.graph.parent.glob(f"{role.graph.name}*"))
        figures = ", ".join(
            f"{key} {value:.3g}" for key, value in role.parity.items() if isinstance(value, (int, float))
        )
        typer.echo(f"{name}: {role.source.get('id')}, {role.precision}, {size / 1e6:,.0f} MB; {figures}", err=True)
    typer.echo(f"wrote {out}", err=True)
