"""Whether a program that slept still fits the types of what it calls: checked again when they have changed.

Its text travels with it, so it goes on as it was written. What may have changed is what it speaks to: an API that was
imported anew, a tool of an MCP server. A run whose remaining lines do not fit stops before the next of them runs.
"""

from collections.abc import Awaitable, Callable, Sequence

from overwinter.check import Finding, remaining, render
from overwinter.errors import ProgramOutdated
from overwinter.store import Loaded, Store

__all__ = ["recheck"]


async def recheck(run: Loaded, check: Callable[[Loaded], Awaitable[Sequence[Finding]]], store: Store) -> None:
    """Check a run's program against the types of this moment.

    Args:
        run: as loaded, asleep.
        check: returns what is wrong with its whole program; remembered by whoever gives it.
        store: knows at which lines it waits.

    Raises:
        ProgramOutdated: what is left of it does not fit; the message says line, what is wrong and what it is now.
    """
    findings = [each for each in await check(run) if each.is_certain and each.rule != "uncheckable"]
    if not findings:
        return
    lines = [record.call.line for record in await store.calls(run.run_id)]
    left = remaining(findings, run.program, lines)
    if left:
        wrong = render(left, run.program).partition("\n")[2]
        raise ProgramOutdated(
            f"what this program calls has changed since it was checked, and the rest of it does not fit; nothing of that ran:\n{wrong}"
        )
