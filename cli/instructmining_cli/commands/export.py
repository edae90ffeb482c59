"""``instructmining export``: writes models as a bundle."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from instructmining.errors import ExportError
from instructmining_cli.options.checks import a_count, known_indicators, known_rule
from instructmining_cli.options.output import Json
from instructmining_cli.process.extras import not_installed
from instructmining_cli.process.terminal import say

if TYPE_CHECKING:
    from instructmining.bundle import PrecisionName, Role, RoleName
    from instructmining_export.via.choices import Via

_MODEL = "an id on the Hugging Face hub, or a folder with the same files."


def export(
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of the bundle; roles that it already has are kept.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="A set of models: demo, paper-v1 or paper-v3. Models of single roles can be given instead."),
    ] = None,
    reward: Annotated[str | None, typer.Option(help=f"Reward model: {_MODEL}")] = None,
    perplexity: Annotated[str | None, typer.Option(help=f"Causal language model: {_MODEL}")] = None,
    embedding: Annotated[str | None, typer.Option(help=f"Sentence encoder: {_MODEL}")] = None,
    unieval: Annotated[str | None, typer.Option(help=f"UniEval T5: {_MODEL}")] = None,
    precision: Annotated[
        str, typer.Option(help="fp32; fp16 for CUDA; int8 for the CPU. Each is checked within its own bounds.")
    ] = "fp32",
    via: Annotated[
        str,
        typer.Option(
            help="What makes the graphs: own (our builders); optimum or transformers (their exporters, for any family, "
            "in fp32); auto: own, and for families it lacks the exporter that is installed."
        ),
    ] = "auto",
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit; for a single model from the hub.")
    ] = None,
    only: Annotated[str | None, typer.Option(help="Export only this role of the preset.")] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=16,
            callback=a_count,
            help="Most tokens of a text of a role; by default the model's own limit, at most 2048.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace roles that the bundle already has, or the model repository.")
    ] = False,
    triton: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a model repository of Triton, of the exported bundle or of --bundle."),
    ] = None,
    bundle: Annotated[
        str | None, typer.Option(metavar="DIR", help="With --triton: a bundle that exists, instead of an export.")
    ] = None,
    rule: Annotated[
        str | None, typer.Option(callback=known_rule, help="With --triton: paper-v1, paper-v3 or a JSON file.")
    ] = None,
    indicators: Annotated[
        str | None,
        typer.Option(
            callback=known_indicators,
            help="With --triton: columns to compute, comma-separated; by default the rule's, or all but neighbours.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="With --triton: cpu or cuda, on which Triton runs the models.")] = "cpu",
    json: Json = False,
) -> None:
    """Write a bundle of ONNX graphs that score runs without PyTorch; each is first checked against its model.

    demo: SmolLM2-135M-Instruct, all-MiniLM-L6-v2 and a small reward head, from weights fetched with pip; needs no
    PyTorch in fp32.
    paper-v1, paper-v3: the models of the paper's rules, from the hub.
    --triton: the models, and a front for Triton's Python backend that takes rows as text.

    Examples:
        instructmining export --reward FOLDER -o my-bundle --precision fp16
        instructmining export --triton DIR --bundle my-bundle --indicators reward
    """
    from instructmining.bundle import PRECISIONS, ROLES
    from instructmining.errors.names import no_such
    from instructmining_cli.reports.json_out import print_document
    from instructmining_export.via.choices import VIAS

    # Options are checked before PyTorch is loaded, which takes seconds.
    given = {"reward": reward, "perplexity": perplexity, "embedding": embedding, "unieval": unieval}
    models: dict[RoleName, str] = {role: model for role in ROLES if (model := given[role]) is not None}
    if precision not in PRECISIONS:
        raise typer.BadParameter(f"--precision: {no_such('precision', precision, PRECISIONS)}")
    if via not in VIAS:
        raise typer.BadParameter(f"--via: {no_such('way', via, VIAS)}")
    if via in {"optimum", "transformers"} and precision != "fp32":
        raise typer.BadParameter(f"--precision {precision}: graphs made with --via {via} are in fp32")
    served = _served(triton, bundle, _Served(rule, indicators, device))
    document: dict[str, object] = {}
    if bundle is None:
        if out is None:
            missing = "--out is missing: the folder of the bundle"
            raise typer.BadParameter(missing if triton is None else "--triton: give --bundle, or models and -o")
        wanted = _Wanted(precision, max_length, via, revision, only)
        document = _bundle(out, models, preset, wanted, overwrite=overwrite)
    elif out is not None or preset is not None or models:
        raise typer.BadParameter("--bundle is a bundle that exists; give it without --out, --preset and models")
    if triton is not None:
        document |= _write_repository(triton, bundle or out, served, overwrite=overwrite)
    if json:
        print_document(document)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """How models are exported."""

    precision: PrecisionName
    max_length: int | None
    via: Via
    revision: str | None
    only: str | None


def _bundle(
    out: Path, models: dict[RoleName, str], preset: str | None, wanted: _Wanted, *, overwrite: bool
) -> dict[str, object]:
    """Write the bundle, and return facts on it."""
    default_rule = None
    if preset == "demo":
        if models or wanted.only or wanted.revision or wanted.via not in {"auto", "own"}:
            raise typer.BadParameter(
                "the preset demo is exported as a whole; give it without models, --only, --revision and --via"
            )
    else:
        models, default_rule = _chosen(models, preset, wanted.only)
        _check_places(models, wanted.revision)
    if preset == "demo" and wanted.precision == "fp32" and wanted.max_length is None:
        _copy_demo(out, overwrite=overwrite)
    else:
        _export(out, models, wanted, default_rule, overwrite=overwrite)
    _say_result(out, frozenset(models) or None)
    return _as_json(out, frozenset(models) or None)


@dataclass(frozen=True, slots=True)
class _Served:
    """What a model repository computes."""

    rule: str | None
    indicators: str | None
    device: str


def _served(triton: Path | None, bundle: str | None, served: _Served) -> _Served:
    """Check the options of a model repository, and return them."""
    if served.device not in {"cpu", "cuda"}:
        raise typer.BadParameter(f"--device {served.device!r}: wanted cpu or cuda, on which Triton runs the models")
    options = {"--bundle": bundle, "--rule": served.rule, "--indicators": served.indicators}
    if triton is None and (alone := [option for option, value in options.items() if value is not None]):
        raise typer.BadParameter(f"{alone[0]} is for a model repository; give --triton DIR too")
    return served


def _write_repository(
    triton: Path, bundle: str | Path | None, served: _Served, *, overwrite: bool
) -> dict[str, object]:
    """Write a bundle as a model repository of Triton, and return facts on it."""
    from instructmining.bundle import Bundle
    from instructmining.rules import Rule
    from instructmining_serving.triton.repository import Repository

    assert bundle is not None  # checked with the options
    rule = None if served.rule is None else Rule.load(served.rule)
    repository = Repository.of(Bundle.open(bundle), rule, served.indicators, device_kind=served.device)
    if left_out := ", ".join(repository.left_out(served.indicators)):
        say(f"left out: {left_out}, which needs the neighbours of each row; a model of Triton has a few rows")
    repository.write(triton, overwrite=overwrite)
    models, columns = list(repository.models), list(repository.columns)
    say(f"models: {', '.join(models)}; columns: {', '.join(columns)}")
    say(f"wrote {triton}")
    return {"triton": {"out": str(triton), "models": models, "columns": columns}}


def _chosen(
    models: dict[RoleName, str], preset: str | None, only: str | None
) -> tuple[dict[RoleName, str], str | None]:
    """Return the models to export (those given replace those of the preset), and the rule of the preset."""
    from instructmining.errors.names import no_such
    from instructmining_export.presets import PRESETS

    if preset is not None and preset not in PRESETS:
        raise typer.BadParameter(f"--preset: {no_such('preset', preset, ['demo', *PRESETS])}")
    found = PRESETS[preset] if preset is not None else None
    chosen = {**(found.models if found else {}), **models}
    if only is not None and only not in chosen:
        raise typer.BadParameter(f"--only: {no_such('model given for the role', only, chosen)}")
    if not chosen:
        raise typer.BadParameter("nothing to export; give --preset, or a model for a role such as --reward")
    return {role: model for role, model in chosen.items() if only in {None, role}}, found.rule if found else None


def _check_places(models: dict[RoleName, str], revision: str | None) -> None:
    if revision is not None and len([model for model in models.values() if not _is_folder(model)]) != 1:
        raise typer.BadParameter("--revision names a commit of one model; export others one at a time (--only ROLE)")
    for model in models.values():
        if model.startswith((".", "/", "~")) and not _is_folder(model):
            raise ExportError(f"{model}: no such folder; wanted one with config.json, or a model's id, owner/name")


def _is_folder(model: str) -> bool:
    """Return whether a model is given as FOLDER or FOLDER=ID."""
    return Path(model).expanduser().is_dir() or Path(model.rpartition("=")[0] or "?").expanduser().is_dir()


def _copy_demo(out: Path, *, overwrite: bool) -> None:
    """Copy the cached demo bundle, which is written first if it is not there; needs no PyTorch."""
    from instructmining_cli.run.demo_bundle import demo_bundle
    from instructmining_export.bundles import copy_bundle

    copy_bundle(demo_bundle(say), out, overwrite=overwrite)


def _export(
    out: Path, models: dict[RoleName, str], wanted: _Wanted, default_rule: str | None, *, overwrite: bool
) -> None:
    """Export the models, or the demo's where none is given."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # hides transformers' progress bars
    try:
        from instructmining_export.bundles import BundleWriter

        if models:
            BundleWriter(out, frozenset(models), overwrite).check()
        say("loading PyTorch and transformers")
        from instructmining_export.demo.preset import export_demo
        from instructmining_export.exporting import export_bundle
        from instructmining_export.roles import Settings
    except ModuleNotFoundError as error:
        raise ExportError(not_installed(error, "export")) from error
    settings = Settings(wanted.precision, wanted.max_length, say, wanted.via)
    if models:
        export_bundle(
            out,
            models,
            settings=settings,
            revision=wanted.revision or "main",
            overwrite=overwrite,
            default_rule=default_rule,
        )
    else:
        export_demo(out, settings=settings, overwrite=overwrite)


def _say_result(out: Path, written: frozenset[RoleName] | None) -> None:
    """Say the roles written, with the figures of their check and the bounds, and name the roles kept."""
    from instructmining.bundle import Bundle
    from instructmining.inference.references import BOUNDS

    bundle = Bundle.open(out)
    for name, role in bundle.roles.items():
        if written is not None and name not in written:
            say(f"{name}: kept")
            continue
        figures = BOUNDS[role.precision].beside(role.parity)
        say(f"{name}: {role.source.get('id')}, {role.precision}, {_size(role) / 1e6:,.1f} MB; {figures}")
    say(f"wrote {out}")


def _as_json(out: Path, written: frozenset[RoleName] | None) -> dict[str, object]:
    """Return facts on the bundle and its roles: model, size, agreement with the model, and whether written now."""
    from instructmining.bundle import Bundle

    bundle = Bundle.open(out)
    return {
        "out": str(out),
        "name": bundle.name,
        "digest": bundle.digest,
        "roles": {
            name: {
                "written": written is None or name in written,
                "source": dict(role.source),
                "precision": role.precision,
                "max_length": role.max_length,
                "bytes": _size(role),
                "parity": dict(role.parity),
            }
            for name, role in bundle.roles.items()
        },
    }


def _size(role: Role) -> int:
    """Return the bytes of a role's graph and weights."""
    return sum(file.stat().st_size for file in role.graph.parent.glob(f"{role.graph.name}*"))
