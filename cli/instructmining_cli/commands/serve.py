"""``instructmining serve``: scores rows over HTTP."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from instructmining.errors import InputError, InstructMiningError
from instructmining_cli.options.checks import a_count, a_port, a_span
from instructmining_cli.options.devices import DeviceName
from instructmining_cli.options.scoring import BundleFolder, Indicators, Roles, RuleName
from instructmining_cli.process.extras import not_installed
from instructmining_cli.process.stopping import stopping
from instructmining_cli.process.terminal import say, warn

if TYPE_CHECKING:
    from instructmining_serving.http.server import Server
    from instructmining_serving.http.sockets import Address
    from instructmining_serving.service import ScoringService

TOKEN_VARIABLE = "INSTRUCTMINING_TOKEN"
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_KEEP_ALIVE_S = 75  # longer than clients keep a connection that they do not use


def serve(
    bundle: BundleFolder = None,
    rule: RuleName = None,
    indicators: Indicators = None,
    roles: Roles = "",
    knn_against: Annotated[
        str | None, typer.Option(metavar="FILE", help="Rows that are the neighbours of each row, for knn columns.")
    ] = None,
    device: DeviceName = "auto",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(callback=a_port, help="Port to listen on.")] = 8000,
    token_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help=f"File with the bearer token of all requests; or {TOKEN_VARIABLE} has it."),
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Let everybody in who reaches an address that is not loopback.")
    ] = False,
    max_wait_ms: Annotated[
        float, typer.Option(callback=a_span, help="How long a batch waits for requests that are being tokenized.")
    ] = 2.0,
    queue_tokens: Annotated[
        int, typer.Option(min=1, callback=a_count, help="Tokens that may wait; more are refused with 429.")
    ] = 1 << 18,
    max_rows: Annotated[int, typer.Option(min=1, callback=a_count, help="Rows of a request.")] = 2048,
    max_tokens: Annotated[int, typer.Option(min=1, callback=a_count, help="Tokens of a request, for all models.")] = 1
    << 17,
    max_bytes: Annotated[
        int, typer.Option(min=1, callback=a_count, help="Bytes of a request's body, decompressed.")
    ] = 32 << 20,
    timeout: Annotated[float, typer.Option(min=0.1, callback=a_span, help="Seconds that a request may take.")] = 60.0,
    tokenizer_info: Annotated[
        bool, typer.Option("--tokenizer-info", help="Answer /tokenizer_info: lm-eval then uses this tokenizer.")
    ] = False,
) -> None:
    """Score rows over HTTP: POST /v1/score and /v1/select, in batches that join the texts of many requests.

    Takes requests once every model is warm, and says so; 503 until then. /health says what runs, /metrics is for
    Prometheus, and /docs has all routes. A bearer token is required on addresses that are not loopback. Ctrl-C ends it
    when the requests at work are answered, a second one at once. Needs the extra [serve].

    Examples:
        instructmining serve --indicators perplexity,reward
        instructmining serve --rule paper-v1 --knn-against pool.jsonl
    """
    try:
        import uvicorn

        from instructmining_serving.http.app import HttpOptions, create_app
        from instructmining_serving.http.bodies import BodyLimits
        from instructmining_serving.http.completions import not_computed
        from instructmining_serving.http.connections import TimedConnection
        from instructmining_serving.http.metrics import Metrics
        from instructmining_serving.http.server import Server
        from instructmining_serving.http.sockets import bound
        from instructmining_serving.scheduling.errors import HangingError
        from instructmining_serving.scheduling.scheduler import Limits
        from instructmining_serving.service import ScoringService, ServiceOptions
    except ModuleNotFoundError as error:
        raise InstructMiningError(not_installed(error, "serve")) from error
    from instructmining_cli.run.demo_bundle import demo_bundle, naming_another

    token = _token(token_file)
    if token is None and host not in _LOOPBACK and not no_auth:
        raise typer.BadParameter(
            f"--host {host}: is not loopback, so requests need a token: put it into {TOKEN_VARIABLE} or a "
            "--token-file, or give --no-auth"
        )
    metrics = Metrics()
    limits = Limits(queue_tokens, max_wait_ms / 1000, max_batch_s=timeout)
    options = ServiceOptions(None, rule, indicators, device, roles, knn_against, max_rows, max_tokens, limits)
    http = HttpOptions(token, BodyLimits(max_bytes), timeout, tokenizer_info, warms_up=False)
    try:
        with (
            bound(host, port) as address,
            naming_another(),
            ScoringService.open(replace(options, bundle=bundle or demo_bundle(say)), metrics.observer()) as service,
        ):
            _say_what_lacks(service, not_computed(service))
            models = ", ".join(service.roles) or "no model"
            say(f"warming up {models} on {', '.join(map(str, service.scorer.devices))}")
            config = uvicorn.Config(
                create_app(service, metrics, http),
                http=TimedConnection,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=int(timeout) + 1,
            )
            server = Server(config, service)
            with stopping().asking(server.ask_to_end):
                address.listen()
                asyncio.run(_run(server, service, address))
    except HangingError as error:
        stopping().abandon(f"error: {error}")  # the interpreter's end could wait for its thread, or crash under it


def _say_what_lacks(service: ScoringService, not_computed: str | None) -> None:
    if left_out := ", ".join(service.left_out):
        say(f"left out: {left_out}, which needs rows to compare with (--knn-against)")
    for caution in (service.scorer.caution, not_computed):
        if caution is not None:
            warn(f"warning: {caution}")


async def _run(server: Server, service: ScoringService, address: Address) -> None:
    """Answer from the beginning, so that a probe sees the warm-up, and a signal ends it.

    Raises:
        DeviceError: a graph fails in the warm-up.
    """
    warming = asyncio.create_task(service.warm_up())

    def warmed(task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        if task.exception() is not None:
            server.ask_to_end()
        elif not server.should_exit:
            say(f"ready: {address.url}, all routes: /docs")

    warming.add_done_callback(warmed)
    await server.serve(list(address.sockets))
    if not warming.cancel():
        await warming


def _token(file: str | None) -> str | None:
    """Return the token from a file or the environment.

    Raises:
        InputError: the file cannot be read, or the token is empty.
    """
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        token = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: {getattr(error, 'strerror', None) or error}") from error
    if not token:
        raise InputError(f"{file}: holds no token")
    return token
