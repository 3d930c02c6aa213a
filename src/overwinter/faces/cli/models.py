"""`overwinter models`: which models may be called, whether they answer, what they cost."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer

from overwinter.errors import UsageError
from overwinter.faces.cli.door import home_path, open_door
from overwinter.faces.cli.guard import Home, Json, guarded, me
from overwinter.faces.cli.render import print_json, safe, table

__all__ = ["model_cli"]

model_cli = typer.Typer(
    no_args_is_help=True, help="Model calls: which are allowed, what they cost, how the budgets stand."
)
Agent = Annotated[str, typer.Option("--agent", "-a", help="Under whose identity")]


@model_cli.command("list")
@guarded
def list_models(*, agent: Agent = "default", home: Home = None, is_json: Json = False) -> None:
    """List the models of overwinter.toml, what they cost, and whether an agent may call them and they can be called."""
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("gateway", "models", agent=agent)["models"]
    if is_json:
        print_json({"models": found})
        return
    rows = [
        {
            **each,
            "may": "yes" if each["is_permitted"] else "no",
            "input": _price(each, "input_usd_per_mtok"),
            "output": _price(each, "output_usd_per_mtok"),
            "state": "left alone" if each["is_left_alone"] else "not ready" if each["fault"] else "ready",
        }
        for each in found
    ]
    columns = ("name", "provider", "provider_model", "region", "retention", "input", "output", "may", "state")
    typer.echo(
        table(rows, columns) if rows else "no model is declared: [providers.NAME] and [models.NAME] in overwinter.toml"
    )
    for fault, names in _by_fault(found).items():
        typer.echo(safe(f"{', '.join(names)}: {fault}"))


@model_cli.command("test")
@guarded
def try_models(
    models: Annotated[
        list[str] | None, typer.Argument(help="Which; all without patterns, if none is named", show_default=False)
    ] = None,
    *,
    agent: Agent = "default",
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Ask each model for one word, for a fraction of a cent, and say whether it answers."""
    with open_door(home_path(home), is_json=is_json) as client:
        names = models or [
            each["name"] for each in client.get("gateway", "models", agent=agent)["models"] if each["is_plain"]
        ]
        if not names:
            raise UsageError("overwinter.toml declares no model by its whole name: say which, `models test NAME`")
        tried: list[dict[str, Any]] = []
        for name in names:
            began = time.monotonic()
            answer = client.post("gateway", "test", model=name, agent=agent)
            tried.append({"model": name, "ms": round((time.monotonic() - began) * 1_000), **answer})
            if not is_json:
                typer.echo(
                    f"{safe(name)}: {'answers' if answer['is_answered'] else safe(answer['message'])}, {tried[-1]['ms']} ms"
                )
    if is_json:
        print_json({"models": tried})
    if not all(each["is_answered"] for each in tried):
        raise typer.Exit(1)


@model_cli.command("usage")
@guarded
def usage(
    *,
    by: Annotated[
        str, typer.Option("--by", help="agent, run, model, upstream, key, day; several with commas")
    ] = "model",
    days: Annotated[float, typer.Option("--days", help="Of how many days")] = 30.0,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Show what model calls used and cost, and what kept answers saved."""
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("gateway", "usage", by=by, days=days)
        budgets = client.get("gateway", "budgets")["budgets"]
    if is_json:
        print_json({**found, "budgets": budgets})
        return
    rows = [{**each, "cost": _usd(each["cost_nusd"]), "saved": _usd(each["saved_nusd"])} for each in found["usage"]]
    columns = (
        *found["by"],
        "calls",
        "cached",
        "input_tokens",
        "cache_read_tokens",
        "output_tokens",
        "cost",
        "saved",
        "unknown",
    )
    typer.echo(table(rows, columns) if rows else f"no model was called in the last {days:g} days")
    for each in budgets:
        typer.echo(_budget(each))


@model_cli.command("log")
@guarded
def log(  # noqa: PLR0913 - a command's options
    *,
    agent: Annotated[str | None, typer.Option("--agent", "-a", help="Of this agent")] = None,
    run: Annotated[str | None, typer.Option("--run", help="Of this run, by its whole id")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Of this model")] = None,
    state: Annotated[str | None, typer.Option("--state", help="held, settled or unknown")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many, the newest first")] = 20,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """List model calls, the newest first: who, which model, how it ended, what it cost."""
    wanted = {"agent": agent, "run": run, "model": model, "state": state}
    given = {key: value for key, value in wanted.items() if value is not None}
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("gateway", "calls", limit=limit, **given)
    if is_json:
        print_json(found)
        return
    rows = [
        {
            **each, "cost": "" if each["cost_nusd"] is None else _usd(each["cost_nusd"]), "status": each["status"] or each["state"],
            "tokens": "" if each["usage"] is None else f"{each['usage']['input']}+{each['usage']['output']}",
        }
        for each in found["calls"]
    ]  # fmt: skip
    columns = ("began", "agent", "model", "provider", "status", "tokens", "cost", "call")
    typer.echo(table(rows, columns) if rows else "no model was called")


@model_cli.command("cost")
@guarded
def cost(
    call: Annotated[
        str,
        typer.Argument(
            help="Name of a call of unknown cost, as `models log --state unknown` prints it", show_default=False
        ),
    ],
    usd: Annotated[float, typer.Argument(help="What the provider billed for it, in US dollars", show_default=False)],
    *,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Say what a call cost that a crash cut off: until then its whole hold counts as spent."""
    with open_door(home_path(home), is_json=is_json) as client:
        corrected = client.post("gateway", "calls", call, "cost", usd=usd, by=me())
    if is_json:
        print_json(corrected)
    else:
        typer.echo(f"{safe(call)}: {_usd(corrected['cost_nusd'])}")


def _usd(nusd: int) -> str:
    return f"{nusd / 1e9:.6f} USD"


def _by_fault(models: Iterable[Mapping[str, Any]]) -> Mapping[str, Sequence[str]]:
    """Return what is wrong, and with which models: those of one provider lack the same credential."""
    found = defaultdict[str, list[str]](list)
    for each in models:
        if each["fault"]:
            found[each["fault"]].append(each["name"])
    return found


def _price(model: Mapping[str, Any], which: str) -> str:
    if not model["is_plain"]:
        return "by name"
    return "unknown" if model[which] is None else f"{model[which]:g}"


def _budget(budget: Mapping[str, Any]) -> str:
    what = "" if budget["limit_usd"] is None else f"{budget['spent_usd']:.6f} of {budget['limit_usd']:g} USD"
    held = f", {budget['held_usd']:.6f} held" if budget["held_usd"] else ""
    calls = "" if budget["calls_max"] is None else f"{budget['calls']} of {budget['calls_max']} calls"
    until = f", until {budget['until']}" if budget["until"] else ""
    return (
        f"{safe(budget['of'])} a {budget['window']}: {', '.join(each for each in (what, calls) if each)}{held}{until}"
    )
