"""``instructmining doctor``: what works here and what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from instructmining_cli.options.checks import known_device
from instructmining_cli.process.terminal import echo


def doctor(
    bundle: Annotated[
        Path | None,
        typer.Option(help="Also check this bundle: every digest, and its graphs against their reference values."),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            callback=known_device, help="Where the bundle's graphs are run: auto, cpu, cuda, cuda:N or cuda:0,1."
        ),
    ] = "auto",
) -> None:
    """Print versions, the devices as measured, and what is missing; with --bundle, prove its numbers on a device."""
    from instructmining.bundle import Bundle
    from instructmining.bundle.demo import cached_demo_bundle
    from instructmining.inference.devices import choose_devices, choose_devices_for
    from instructmining_cli.machine.diagnosis import check_bundle, describe_machine

    for name, value in describe_machine().items():
        echo(f"{name + ':':<28}{value}")
    cached = cached_demo_bundle()
    echo(f"{'demo bundle:':<28}{cached or 'not built yet; score builds it when it is first needed'}")
    if bundle is None:
        choose_devices(device)
        return
    opened = Bundle.open(bundle)
    devices = choose_devices_for(opened.roles.values(), device, batches_at_once=1)  # it runs one after the other
    opened.verify()
    echo(f"{'bundle:':<28}{bundle}: all {len(opened.files)} files are as exported")
    problems = 0
    for chosen in devices:
        for check in check_bundle(opened, chosen):
            problems += not check.passed
            name = check.role if len(devices) == 1 else f"{check.role} on {chosen}"
            echo(f"{name + ':':<28}{check}")
    if problems:
        raise typer.Exit(1)
