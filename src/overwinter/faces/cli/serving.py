"""`overwinter serve`: one process with the worker and the API."""

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import typer
import uvloop
from anyio.abc import TaskStatus

from overwinter.adapters.home import config_path
from overwinter.app import App
from overwinter.app.credentials import missing
from overwinter.errors import HomeHeld
from overwinter.faces.cli.logs import log_json
from overwinter.faces.cli.progress import progress
from overwinter.faces.cli.render import print_json
from overwinter.faces.server import serve
from overwinter.faces.tcp import Port, listen

__all__ = ["serve_home", "spare_collections"]

HELD_S_MAX = 3.0
"""How long another holder of the home is waited for: longer than a command takes that opens the home for itself."""
HELD_PAUSE_S = 0.1
YOUNG_MAX = 10_000
"""Values made and kept from which on Python looks for cycles among them, which takes 0.6 ms; of its own, 700. A commit of many
runs keeps more than those for a moment, and none of them is in a cycle: they were searched every 35 turns."""


def serve_home(home: Path, port: Port | None = None, *, is_json: bool = False, has_log: bool = False) -> None:
    """Run a home until SIGINT or SIGTERM; then let its calls in flight end, and stop."""
    if has_log:
        log_json()
    gc.freeze()  # what modules keep is not looked through when the home is open, which took 50 ms before the first turn
    anyio.run(_serve, home, port, is_json, backend_options={"loop_factory": uvloop.new_event_loop})


def spare_collections() -> None:
    """Have Python look for lost cycles seldom, in a process that serves a home which has just been opened."""
    # Rules and functions stay as long as the server: with 10,000 rules each full collection would look through all
    # of them, and stop whatever is decided or driven at that moment for 100 ms.
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, *gc.get_threshold()[1:])
    gc.enable()


async def _serve(home: Path, port: Port | None, is_json: bool) -> None:  # noqa: FBT001 - anyio.run passes no keywords
    stop = anyio.Event()
    async with AsyncExitStack() as stack:
        listener = None if port is None else stack.enter_context(listen(port))
        app = await _opened(stack, home, is_json=is_json)
        spare_collections()
        group = await stack.enter_async_context(anyio.create_task_group())
        await group.start(_stop_on_signal, stop)  # before anybody can see that it serves, and end it
        functions = sum(len(module.functions) for module in app.catalog.modules.values())

        def started(socket: Path) -> None:
            if is_json:
                where = {} if listener is None else {"url": listener.url}
                said = {"home": str(home), "socket": str(socket), "pid": os.getpid(), "functions": functions}
                print_json({**said, **where})
                return
            typer.echo(
                f"serving {home} on {socket}: {functions} functions, {len(app.config.agents)} agents; Ctrl-C stops"
            )
            if listener is not None:
                typer.echo(f"and on {listener.url}, for tokens: `overwinter token create`")
            for each in _lacking(app, home):
                typer.echo(each, err=True)

        await serve(app, home, started, stop, listener)
        group.cancel_scope.cancel()
    if not is_json:
        typer.echo("stopped")


def _lacking(app: App, home: Path) -> Iterator[str]:
    """Yield what somebody who starts a server should know before it is missed."""
    for each in app.sources():
        if not each.functions and each.faults:
            yield f"service {each.service} has no functions here: {each.faults[0].what}"
    for each in missing(app.config, config_path(home).parent, home):
        yield f"without a credential: {each}"
    if app.auditing.log.fault:
        yield app.auditing.log.fault
    elif app.rulebook.fault:
        yield f"nothing is allowed and no run wakes: {app.rulebook.fault}; mend it, then `overwinter policy reload`"
    if app.config.jail.off or app.config.jail.allow_missing:
        yield "the interpreter's jail has accepted gaps: `overwinter doctor` shows them"


async def _opened(stack: AsyncExitStack, home: Path, *, is_json: bool) -> App:
    """Open the home; a command that holds it for a moment is waited for."""
    deadline = anyio.current_time() + HELD_S_MAX
    while True:
        try:
            with progress(is_quiet=is_json) as importing:
                return await stack.enter_async_context(App.open(home, importing=importing))
        except HomeHeld:
            if anyio.current_time() > deadline:
                raise
            await anyio.sleep(HELD_PAUSE_S)


async def _stop_on_signal(stop: anyio.Event, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            stop.set()
