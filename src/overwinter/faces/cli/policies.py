"""`overwinter grant`, `grants` and `policy`: what agents may do, beyond overwinter.toml, and why."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from overwinter.errors import UsageError
from overwinter.faces.cli.door import home_path, open_door
from overwinter.faces.cli.guard import Home, Json, guarded, me, seconds
from overwinter.faces.cli.render import event_line, print_json, safe, table

__all__ = ["grant", "grants", "policy_cli"]

policy_cli = typer.Typer(
    no_args_is_help=True, help="The rules of this home: whether they are right, and what they come to."
)
Agent = Annotated[str, typer.Argument(help="An agent", show_default=False)]
Since = Annotated[str | None, typer.Option("--since", help="7d, 12h, 5m; from the beginning if not given")]


def grant(  # noqa: PLR0913 - a command's options
    agent: Agent,
    pattern: Annotated[str, typer.Argument(help="service.function, or service.*", show_default=False)],
    *,
    reads: Annotated[bool, typer.Option("--reads", help="Only functions that change nothing")] = False,
    asks: Annotated[bool, typer.Option("--asks", help="Only once a person has said yes to the very call")] = False,
    approver: Annotated[str, typer.Option("--approver", help="That person, if not the agent's owner")] = "",
    expires: Annotated[str | None, typer.Option("--expires", help="7d, 12h, 5m: it ends by itself")] = None,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Let an agent do more than overwinter.toml says, at once; `revoke grant:N` takes it away."""
    ends = None if expires is None else round((time.time() + seconds(expires)) * 1_000_000)
    given = {"agent": agent, "pattern": pattern, "reads": reads, "asks": asks, "approver": approver, "expires_us": ends}
    with open_door(home_path(home), is_json=is_json) as client:
        made = client.post("grants", **given, by=me())
    print_json(made) if is_json else typer.echo(f"{made['id']}: {safe(agent)} may call {safe(pattern)} from now on")


def grants(
    agent: Annotated[str | None, typer.Argument(help="Only this agent's", show_default=False)] = None,
    *,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """List what was granted beyond overwinter.toml, by whom and until when."""
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("grants", **({} if agent is None else {"agent": agent}))["grants"]
    if is_json:
        print_json({"grants": found})
        return
    rows = [{**each, "how": each["how"], "expires": each["expires"] or "-"} for each in found]
    columns = ("id", "agent", "pattern", "how", "expires", "by", "made")
    typer.echo(table(rows, columns) if rows else "nothing was granted beyond overwinter.toml")


@policy_cli.command("check")
@guarded
def check_policy(*, home: Home = None, is_json: Json = False) -> None:
    """Validate every rule as it is written now, strictly, by the types of every function; exit code 1 if one is wrong."""
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("policy", "check")
    if is_json:
        print_json(found)
    else:
        for each in found["findings"]:
            rule = f" ({safe(each['rule'])})" if each["rule"] else ""
            typer.echo(
                f"{'wrong' if each['is_error'] else 'note '}  {safe(each['place'])}{rule}: {safe(each['message'])}"
            )
        typer.echo("no rule is wrong" if found["is_well"] else "an error in a rule denies what it is about", err=True)
    raise typer.Exit(0 if found["is_well"] else 1)


@policy_cli.command("explain")
@guarded
def explain_policy(
    agent: Annotated[str, typer.Argument(help="An agent; or a call of a run, RUN:INDEX", show_default=False)],
    function: Annotated[str | None, typer.Argument(help="service.function", show_default=False)] = None,
    arguments: Annotated[list[str] | None, typer.Argument(help="NAME=VALUE", show_default=False)] = None,
    *,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Say how a call was or would be decided, by which rules, and what the nearest permit lacks."""
    if function is None and ":" not in agent:
        raise UsageError(f"write {agent} SERVICE.FUNCTION NAME=VALUE..., or RUN:INDEX for a call that was made")
    given = dict(map(_argument, arguments or []))
    with open_door(home_path(home), is_json=is_json) as client:
        if function is None:
            found = client.get("policy", "explain", agent)
        else:
            found = client.post("policy", "explain", agent=agent, function=function, arguments=given)
    if is_json:
        print_json(found)
    elif function is not None:
        _print_explanation(found)
        _print_outdated(found)
    else:
        typer.echo(f"{safe(found['function'])} of {safe(found['agent'])} was:")
        names: dict[int, str] = {}
        for line in filter(None, (event_line(each, names) for each in found["was"])):
            typer.echo(f"  {line}")
        typer.echo("by the rules of now:")
        _print_explanation(found["now"])


def _print_outdated(found: Mapping[str, Any]) -> None:
    if found.get("is_outdated"):
        message = "overwinter.toml has changed since this server read it: what it says of agents holds when the server was restarted"
        typer.echo(message, err=True)


def _print_explanation(found: Mapping[str, Any]) -> None:
    typer.echo(f"{found['decision']}: {safe(found.get('reason', 'by ' + ', '.join(found['policies'])))}")
    for side in found["sides"]:
        for rule in side["rules"]:
            typer.echo(f"  {safe(side['principal'])}: {safe(rule['id'])} ({safe(rule['place'])})")
        if (nearest := side["nearest"]) is not None:
            typer.echo(
                f"  {safe(side['principal'])}: {safe(nearest['id'])} comes nearest, but for: {safe(nearest['failed'])}"
            )


@policy_cli.command("suggest")
@guarded
def suggest_policy(
    agent: Agent,
    *,
    since: Since = None,
    is_whole: Annotated[
        bool, typer.Option("--whole", help="For all that it did, in place of its permits; else for what it was denied")
    ] = False,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Print the least policy that would have allowed what an agent tried; read it before it becomes one."""
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("policy", "suggest", agent=agent, since_us=_since_us(since), whole=int(is_whole))
    print_json(found) if is_json else typer.echo(found["text"].rstrip() or "// nothing was denied for want of a permit")


@policy_cli.command("simulate")
@guarded
def simulate_policy(
    *,
    policies: Annotated[
        Path | None, typer.Option("--policies", help="Another directory of *.cedar; the home's own if not given")
    ] = None,
    agent: Annotated[str | None, typer.Option("--agent", help="Only this agent's calls")] = None,
    since: Since = None,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Decide past calls by other policies, and list those that would be decided otherwise."""
    if policies is not None and not policies.is_dir():
        raise UsageError(f"{policies} is no directory")
    place = None if policies is None else str(policies.absolute())
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.post("policy", "simulate", policies=place, agent=agent, since_us=_since_us(since))["changes"]
    if is_json:
        print_json({"changes": found})
        return
    rows = [{**each, "before": each["before"]["decision"], "after": each["after"]["decision"]} for each in found]
    typer.echo(table(rows, ("run", "function", "before", "after")) if rows else "every call would be decided as now")


@policy_cli.command("shadow")
@guarded
def shadow_policy(*, home: Home = None, is_json: Json = False) -> None:
    """List what the rules in the shadow would have decided otherwise, since the server has them."""
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("policy", "shadow")
    if is_json:
        print_json(found)
        return
    for fault in found["faults"]:
        typer.echo(f"not tried: {safe(fault)}", err=True)
    if not found["rules"]:
        typer.echo("no rule is in the shadow: mark one with @shadow, or name its file NAME.shadow.cedar")
        return
    count = sum(each["count"] for each in found["differences"])
    typer.echo(
        f"{len(found['rules'])} rules in the shadow since {found['since']}: of {found['decided']} decisions that they concern "
        f"{count} would have been another" + (f", {found['failed']} could not be tried" if found["failed"] else "")
    )
    if found["differences"]:
        typer.echo(table(found["differences"], ("function", "agent", "is", "would_be", "count", "last")))
    for each in found["differences"]:
        for example in each["examples"][:1]:
            given = ", ".join(f"{safe(name)}={safe(value)}" for name, value in example["arguments"].items())
            rules = f" by {', '.join(map(safe, example['policies']))}" if example["policies"] else ""
            typer.echo(f"  {safe(each['function'])}({given}): {safe(each['would_be'])}{rules}, run {example['run']}")


@policy_cli.command("reload")
@guarded
def reload_policy(*, home: Home = None, is_json: Json = False) -> None:
    """Read policies/*.cedar anew, in the running server. A wrong set changes nothing."""
    with open_door(home_path(home), is_json=is_json) as client:
        done = client.post("policy", "reload", by=me())
    if is_json:
        print_json(done)
        return
    for word, names in (("holds now", done["added"]), ("holds no more", done["removed"])):
        for name in names:
            typer.echo(f"{word}: {safe(name)}")
    if not done["added"] and not done["removed"]:
        typer.echo("the rules are as they were")
    _print_outdated(done)


def _argument(word: str) -> tuple[str, Any]:
    import json  # noqa: PLC0415 - one command needs it

    name, equals, text = word.partition("=")
    if not equals:
        raise UsageError(f"{word!r} is no argument: write NAME=VALUE")
    try:
        return name, json.loads(text)
    except ValueError:
        return name, text


def _since_us(since: str | None) -> int:
    return 0 if since is None else round((time.time() - seconds(since)) * 1_000_000)
