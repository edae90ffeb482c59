"""``instructmining doctor``: what works on this machine and what is missing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from instructmining_cli.options.checks import known_device
from instructmining_cli.options.output import Json
from instructmining_cli.process.terminal import echo, say


def doctor(
    bundle: Annotated[
        str | None,
        typer.Option(help="Also check this bundle: every digest, and its graphs against their reference values."),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            callback=known_device, help="Device that the bundle's graphs run on: auto, cpu, cuda, cuda:N or cuda:0,1."
        ),
    ] = "auto",
    json: Json = False,
) -> None:
    """Print versions, devices that work, and what is missing; with --bundle, check its numbers on a device (minutes).

    Examples:
        instructmining doctor
        instructmining doctor --bundle my-bundle --device cuda
    """
    from instructmining.bundle import Bundle
    from instructmining.bundle.demo import cached_demo_bundle
    from instructmining.inference.devices import choose_devices, choose_devices_for
    from instructmining_cli.machine.diagnosis import check_bundle, describe_machine
    from instructmining_cli.reports.json_out import print_document

    machine, cached = describe_machine(), cached_demo_bundle()
    found: dict[str, object] = {"machine": machine, "demo_bundle": str(cached) if cached else None}
    lines = [
        *machine.items(),
        ("demo bundle", cached or "not in the cache yet; score fetches and writes it when it first needs it"),
    ]
    if not json:
        _print(lines)
    if bundle is None:
        choose_devices(device)
        passed = True
    else:
        opened = Bundle.open(bundle)
        devices = choose_devices_for(opened.roles.values(), device, batches_at_once=1)  # one batch at a time
        opened.verify()
        if not json:
            _print([("bundle", f"{bundle}: all {len(opened.files)} files are as exported")])
        checks: list[dict[str, object]] = []
        say("running the reference texts of each role, in batches and each alone; on a CPU this can take minutes")
        for chosen in devices:
            for check in check_bundle(opened, chosen):
                checks.append({"device": str(chosen), **check.as_json()})
                if not json:
                    _print([(check.role if len(devices) == 1 else f"{check.role} on {chosen}", check)])
        found["bundle"] = {"path": str(bundle), "digest": opened.digest, "files": len(opened.files), "checks": checks}
        passed = all(check["passed"] for check in checks)
    if json:
        print_document(found)
    if not passed:
        raise typer.Exit(1)


def _print(lines: Iterable[tuple[str, object]]) -> None:
    for name, value in lines:
        echo(f"{name + ':':<28}{value}")
