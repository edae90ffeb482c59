"""``instructmining export``: models to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the bundle.")],
    preset: Annotated[str, typer.Option(help="What to export: demo.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
) -> None:
    """Write a bundle of ONNX graphs that score and select run without PyTorch.

    demo: SmolLM2-135M-Instruct, all-MiniLM-L6-v2 and a small reward head, from weights installed with pip.
    """
    import shutil

    from instructmining.errors import ExportError
    from instructmining_cli.demo_bundle import demo_bundle

    if preset != "demo":
        raise typer.BadParameter(f"unknown preset {preset!r}; known: demo")
    if out.exists() and not overwrite:
        raise ExportError(f"{out}: exists; give --overwrite to replace it")
    cached = demo_bundle(lambda text: typer.echo(text, err=True))
    partial = out.with_name(f"{out.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(cached, partial)
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    except OSError as error:
        raise ExportError(f"{out}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    typer.echo(f"wrote {out}", err=True)
