"""The commands that stand in modules of their own, each loaded when it is asked for: most uses need one of them, or none."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from overwinter.faces.cli.guard import guarded

__all__ = ["Commands"]

PLACES = {
    "run": "running.run",
    "tools": "tools.tools_cli",
    "agents": "identities.agents_cli",
    "inbox": "governing.inbox",
    "approve": "governing.approve",
    "reject": "governing.reject",
    "revoke": "governing.revoke",
    "restore": "governing.restore",
    "grant": "policies.grant",
    "grants": "policies.grants",
    "policy": "policies.policy_cli",
    "secrets": "secrets.secrets_cli",
    "token": "tokens.token_cli",
    "models": "models.model_cli",
    "hook": "hooks.hook",
    "schedule": "schedules.schedule_cli",
    "webhooks": "webhooks.webhooks_cli",
    "audit": "audit.audit_cli",
    "mcp": "installing.mcp_cli",
}
"""Where each command stands: a module beside this one, and in it a function or a group."""


class Commands(TyperGroup):
    """The command line, which knows the commands of `PLACES` without having loaded them."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - typer's own class moved between its versions
        """Return every command's name; `--help` shows a line of each, so each is loaded."""
        self.commands.update({name: _load(name) for name in PLACES if name not in self.commands})
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - the same
        """Return a command, or None."""
        if cmd_name in PLACES and cmd_name not in self.commands:
            self.commands[cmd_name] = _load(cmd_name)
        elif cmd_name not in self.commands:
            self.list_commands(ctx)  # the error names the commands that are spelled nearly so
        return super().get_command(ctx, cmd_name)


def _load(name: str) -> Any:  # noqa: ANN401 - the same
    module, _, attribute = PLACES[name].partition(".")
    found = getattr(import_module(f"overwinter.faces.cli.{module}"), attribute)
    if isinstance(found, typer.Typer):
        group = get_group(found)
        group.name = name
        return group
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(name)(guarded(found))
    return get_command(alone)
