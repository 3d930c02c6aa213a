"""Function tools of Pydantic AI as a service of a home, for its programs: `[services.desk] python = "my_desk:desk"`.

| a tool's author says | what it is for programs |
|---|---|
| JSON schemas of its arguments and its result | types of its stub |
| `metadata={"effect": "read"}`, or `"idempotent"` | tried again as often as needed; without: a write |
| `requires_approval=True` | each call waits for the agent's owner: `overwinter approve` |
| `timeout` | the longest that one attempt may take |
| raises `ModelRetry` | `ValueError`: the arguments do not do |
| raises `ToolFailed` | `RuntimeError`: nothing was carried out |
| raises `ApprovalRequired`, `CallDeferred` | `PermissionError`: it cannot be known before the call; say `requires_approval` |
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

from pydantic_ai import Agent, RunContext
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, ModelRetry, ToolFailed
from pydantic_ai.messages import ToolReturn
from pydantic_ai.models.test import TestModel
from pydantic_ai.toolsets import AbstractToolset, CombinedToolset, ToolsetTool
from pydantic_ai.usage import RunUsage
from pydantic_core import ValidationError, to_jsonable_python

from overwinter.adapters.python_tools import Declined
from overwinter.functions import CallError, Key

__all__ = ["Offer"]

Deps = TypeVar("Deps")
HINTS: Mapping[str, Mapping[str, bool]] = {
    "read": {"readOnlyHint": True},
    "idempotent": {"idempotentHint": True},
    "write": {},
}


class Offer(Generic[Deps]):
    """Tools of an agent, or of a toolset, as the functions of a service; see `functions.Offers`.

    ```python
    desk = Offer(agent, deps=open_database)
    ```
    """

    def __init__(
        self, source: Agent[Deps, Any] | AbstractToolset[Deps], *, deps: Callable[[], Deps] | None = None
    ) -> None:
        """Offer tools.

        Args:
            source: whose tools: those that an agent has of its own, or a toolset.
            deps: makes the dependencies that the tools see in their context; called for each call, closed by nobody.
        """
        self.toolset = _toolset(source)
        """The tools as Pydantic AI has them; `Durable` gives them back to an agent."""
        self._deps = deps

    async def tools(self) -> Sequence[Mapping[str, Any]]:
        """Return the tools as MCP writes them."""
        found = await self.toolset.get_tools(self._context("", ""))
        return [_told(each) for each in found.values() if each.tool_def.kind in ("function", "unapproved")]

    async def call(self, name: str, arguments: Mapping[str, Any], key: Key) -> Any:  # noqa: ANN401 - a tool's result is what it is
        """Carry out one attempt of a call; the tool sees the call's key as `tool_call_id`, the same in each attempt.

        Raises:
            Declined: the arguments are not as its schema says, it wants others, or something that a program cannot give it.
            CallError: it failed, and nothing was carried out.
        """
        context = self._context(name, key)
        tools = await self.toolset.get_tools(context)
        if name not in tools:
            raise CallError(f"there is no tool {name} any more", status=404)
        tool = tools[name]
        try:
            given = tool.args_validator.validate_python(dict(arguments), context=context.validation_context)
            if tool.args_validator_func is not None:
                checked = tool.args_validator_func(context, **given)
                if inspect.isawaitable(checked):
                    await checked
            result = await self.toolset.call_tool(name, given, context, tool)
        except ValidationError as error:
            raise Declined("ValueError", f"{name}: {error}") from error
        except ModelRetry as error:
            raise Declined("ValueError", error.message) from error
        except ToolFailed as error:
            raise CallError(error.message) from error
        except (ApprovalRequired, CallDeferred) as error:
            message = f"{name} asks for approval in the middle: declare it with requires_approval"
            raise Declined("PermissionError", message) from error
        value = cast("ToolReturn[Any]", result).return_value if isinstance(result, ToolReturn) else result
        return to_jsonable_python(value)

    def _context(self, name: str, key: str) -> RunContext[Deps]:
        # What a program calls has no agent run around it: no model, no messages. The gate stands before the call.
        deps = cast("Deps", None) if self._deps is None else self._deps()
        return RunContext(
            deps=deps, model=TestModel(), usage=RunUsage(), tool_name=name or None, tool_call_id=key or None,
            tool_call_approved=True,
        )  # fmt: skip


def _toolset(source: Agent[Any, Any] | AbstractToolset[Any]) -> AbstractToolset[Any]:
    return CombinedToolset(source.toolsets) if isinstance(source, Agent) else source


def _told(tool: ToolsetTool[Any]) -> Mapping[str, Any]:
    declared = tool.tool_def
    effect = str((declared.metadata or {}).get("effect", "write"))
    if effect not in HINTS:
        raise ValueError(f"{declared.name}: its effect is read, idempotent or write, not {effect!r}")
    told: dict[str, Any] = {
        "name": declared.name,
        "description": declared.description or "",
        "inputSchema": declared.parameters_json_schema,
        "annotations": HINTS[effect],
        "isGated": declared.kind == "unapproved",
    }
    if declared.return_schema is not None:
        told["outputSchema"] = declared.return_schema
    if declared.timeout is not None:
        told["timeoutSeconds"] = declared.timeout
    return told
