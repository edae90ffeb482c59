"""``instructmining doctor``: what works here and what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def doctor(
    bundle: Annotated[
        Path | None,
        typer.Option(help="Also check this bundle: every digest, and its graphs against their reference values."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where the bundle's graphs are run: auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Print versions, the devices as measured, and what is missing; with --bundle, prove its numbers on a device."""
    from instructmining.bundle import Bundle
    from instructmining.diagnosis import check_bundle, describe_machine
    from instructmining.sessions import choose_device, choose_device_for
    from instructmining_cli.demo_bundle import cached_demo_bundle

    for name, value in describe_machine().items():
        typer.echo(f"{name + ':':<28}{value}")
    cached = cached_demo_bundle()
    typer.echo(f"{'demo bundle:':<28}{cached or 'not built yet; score builds it when it is first needed'}")
    if bundle is None:
        choose_device(device)
        return
    opened = Bundle.open(bundle)
    chosen = choose_device_for(opened.roles.values(), device)
    opened.verify()
    typer.echo(f"{'bundle:':<28}{bundle}: all {len(opened.files)} files are as exported")
    problems = 0
    for check in check_bundle(opened, chosen):
        problems += not check.passed
        typer.echo(f"{check.role + ':':<28}{check}")
    if problems:
        raise typer.Exit(1)
