"""`overwinter serve`: one process with the worker and the API."""

import signal
from pathlib import Path

import anyio
import typer
import uvloop
from anyio.abc import TaskStatus

from overwinter.app import App
from overwinter.faces.server import serve

__all__ = ["serve_home"]


def serve_home(home: Path) -> None:
    """Run a home until SIGINT or SIGTERM; then let its calls in flight end, and stop."""
    anyio.run(_serve, home, backend_options={"loop_factory": uvloop.new_event_loop})


async def _serve(home: Path) -> None:
    stop = anyio.Event()
    async with App.open(home) as app, anyio.create_task_group() as group:
        await group.start(_stop_on_signal, stop)  # before anybody can see that it serves, and end it
        functions = sum(len(module.functions) for module in app.catalog.modules.values())

        def started(socket: Path) -> None:
            typer.echo(
                f"serving {home} on {socket}: {functions} functions, {len(app.config.agents)} agents; Ctrl-C stops"
            )
            if app.config.jail.off or app.config.jail.allow_missing:
                typer.echo("the interpreter's jail has accepted gaps: `overwinter doctor` shows them", err=True)

        await serve(app, home, started, stop)
        group.cancel_scope.cancel()
    typer.echo("stopped")


async def _stop_on_signal(stop: anyio.Event, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            stop.set()
