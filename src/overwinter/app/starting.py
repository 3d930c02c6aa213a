"""How runs begin: with a program, checked first, or with a goal; for a person, or for a call of another run."""

import keyword
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, TypedDict, cast

from overwinter import values
from overwinter.app.checks import Checks
from overwinter.app.parts import Parts
from overwinter.brain import LOOP, LOOP_BEGINS, REFUSALS_MAX, STEPS_MAX
from overwinter.catalog import Began, Performed
from overwinter.check import Finding, line_of, render
from overwinter.config import Config
from overwinter.errors import CheckFailed, Conflict, Denied, HomeError, NotFound, OverwinterError, UsageError
from overwinter.events import Call, Raised, Returned, Status
from overwinter.gateway.refusal import ModelRefused
from overwinter.lineage import ATTEMPT, Origin
from overwinter.store import Created, Inherited, NewRun
from overwinter.values import Value

__all__ = ["Limited", "Starting"]

GOAL_CHARACTERS_MAX = 100_000
STEPS_LIMIT = 10_000
NAME_CHARACTERS = 60
LIMIT_MAX = 1_000_000_000
"""Of dollars, which are counted in billionths in 64 bits, and of seconds, of which a call waits for a century's at most."""


class Limited(TypedDict, total=False):
    """How far a goal may go, see `Starting.goal`."""

    model: str
    steps: int
    usd: float | None
    seconds: float | None
    after: str | None


class Starting:
    """Makes runs."""

    def __init__(
        self, config: Config, parts: Parts, checks: Checks, begin: Callable[[NewRun], Awaitable[Created]]
    ) -> None:
        self._config, self._parts, self._checks = config, parts, checks
        self._begin = begin
        """Creates a run that a call waits for, with its first turn if it can."""

    async def program(  # noqa: PLR0913 - what a run begins with
        self,
        source: str,
        *,
        agent: str,
        name: str,
        inputs: Mapping[str, Value],
        dedup: str | None = None,
        by: str = "",
        origin: Origin | None = None,
        only_reads: bool = False,
        after: str | None = None,
        keeps: bool = False,
    ) -> str:
        """Check a program and make a run of it; return the run's id.

        Raises:
            CheckFailed: the program is wrong; nothing ran, and no run was made.
            UsageError: an input has no name that a program can use.
            Conflict: its key has begun another run: of another agent or program, or with other inputs.
        """
        for given in inputs:
            if not given.isidentifier() or keyword.iskeyword(given):
                raise UsageError(f"{given!r} cannot be an input: it is no name that a program can use")
        inherited = None if after is None else await self.inherited(after, agent)
        await self._refuse(source, agent, inputs, only_reads=only_reads, inherited=inherited)
        new = NewRun(
            run_id=self._parts.ids.new(), agent=agent, name=name, program=source, inputs=inputs,
            checked=self._checks.types(source), by=by, origin=origin,
            only_reads=only_reads, after=after, keeps=keeps or after is not None,
        )  # fmt: skip
        # A call waits for what comes of its run, so a commit less is time; a person waits for the id.
        is_awaited = origin is not None and dedup is None
        created = await self._begin(new) if is_awaited else await self._parts.store.create(new, dedup=dedup)
        if not created.is_new:
            await self._refuse_other(created.run_id, new, dedup)
        return created.run_id

    async def _refuse_other(self, run_id: str, new: NewRun, dedup: str | None) -> None:
        """Return if a run is the one that a request with the same key asks for.

        Raises:
            Conflict: it is another: its agent, its program or what that was given.
        """
        store = self._parts.store
        earlier, facts = await store.run(run_id), await store.journal(run_id, 0, 1)
        source = None if earlier is None else await store.program(earlier.program_digest)
        if earlier is None or source is None or not facts:
            return  # it has been collected meanwhile
        asked = _told(new.agent, new.program, new.inputs)
        was = _told(earlier.agent, source, facts[0].body["inputs"])
        other = next((what for what, told in asked.items() if told != was[what]), None)
        if other is not None:
            raise Conflict(f"the key {dedup!r} has begun a run with {other}: take another key")

    async def _refuse(
        self,
        source: str,
        agent: str,
        inputs: Mapping[str, Value],
        *,
        only_reads: bool = False,
        inherited: Inherited | None = None,
    ) -> None:
        """Check a program.

        Raises:
            CheckFailed: it is wrong.
        """
        findings = [
            *await self._checks.check(source, agent, inputs, inherited),
            *(self._writing(source) if only_reads else ()),
        ]
        if any(finding.is_certain for finding in findings):
            raise CheckFailed(findings, render(findings, source))

    async def inherited(self, run_id: str, agent: str) -> Inherited:
        """Return what a program goes on with that comes after a run.

        Raises:
            NotFound: the agent has no such run.
            Conflict: it has not ended, or was to leave nothing.
        """
        inherited = await self._parts.store.inherited(run_id)
        if inherited is not None and inherited.agent == agent:
            return inherited
        run = await self._parts.store.run(run_id)
        if run is None or run.agent != agent:
            raise NotFound(f"agent {agent!r} has no run {run_id!r} to go on from: `overwinter ps --all` lists them")
        raise Conflict(
            f"run {run_id} has left no variables: it has not ended, or was not started to keep them (`--keep`)"
        )

    def _writing(self, source: str) -> Iterator[Finding]:
        """Yield the functions of a program that change something."""
        functions, _ = self._checks.reached(source)
        for each in functions:
            if each.effect not in ("read", "wait"):
                message = f"{each.name} changes something ({each.effect}): this program may only read"
                yield Finding(
                    line=line_of(source, each.name), column=0, rule="only-reads", message=message, at=each.name
                )

    async def goal(  # noqa: PLR0913 - what a run begins with
        self,
        goal: str,
        *,
        agent: str,
        model: str = "",
        steps: int = STEPS_MAX,
        usd: float | None = None,
        seconds: float | None = None,
        after: str | None = None,
        name: str = "",
        dedup: str | None = None,
        by: str = "",
        origin: Origin | None = None,
    ) -> str:
        """Make a run in which a model works at a goal; return the run's id.

        Args:
            goal: what is to be reached, in words.
            agent: under whose identity.
            model: a model of overwinter.toml; "": `[gateway] model`.
            steps: replies of the model at most.
            usd: what all model calls of the run, and of those below it, may cost; None: only what budgets allow.
            seconds: how long it may take; None: as long as it takes.
            after: a run of a goal that has ended: this one goes on with its conversation and its variables.
            name: for people.
            dedup: a second start with the same key returns the first one's run.
            by: who starts it.
            origin: the call of another run that starts it.

        Raises:
            UsageError: a limit is none.
            NotFound: there is no such model, or none at all.
        """
        inputs = self._inputs(goal, model, steps, usd, seconds)
        inputs |= await self._before(after, agent) if after is not None else {"after": None, "last": None}
        name = name or _first_words(goal)
        return await self.program(LOOP, agent=agent, name=name, inputs=inputs, dedup=dedup, by=by, origin=origin)

    async def examine(self, start: Mapping[str, Any], agent: str) -> None:
        """Raise what starting it would, and begin nothing.

        Raises:
            CheckFailed: the program is wrong.
            UsageError: a limit of the goal is none.
        """
        if "goal" in start:
            self._inputs(
                start["goal"],
                start.get("model", ""),
                start.get("steps", STEPS_MAX),
                start.get("usd"),
                start.get("seconds"),
            )
            return
        await self._refuse(start["source"], agent, start.get("inputs", {}))

    async def foresee(self, source: str, *, agent: str, after: str | None) -> None:
        """Check a program that is about to be attempted: what is wrong with it is remembered.

        Raises:
            NotFound: there is nothing that it could go on with; the same as `Conflict`.
        """
        inherited = None if after is None else await self.inherited(after, agent)
        await self._checks.check(source, agent, {}, inherited)

    async def begin(self, call: Call) -> Performed:
        """Begin the run that a call of a program asks for; once, however often the call is made."""
        given: dict[str, Any] = {key: value for key, value in call.arguments.items() if value is not None}
        origin = Origin(run_id=call.run_id, index=call.index)
        try:
            if call.function == ATTEMPT:
                return await self._attempt(given, call.agent, origin)
            return Began(run_id=await self._spawn(given, call, origin))
        except HomeError:
            raise  # nothing was begun, or nobody knows: the call is made again, and finds what it has begun
        except CheckFailed as error:
            return Raised(kind="ValueError", message=str(error), code="check_failed")
        except Denied as error:
            return Raised(kind="PermissionError", message=f"{call.function}: {error}", status=403, code="denied")
        except OverwinterError as error:
            return Raised(kind="RuntimeError", message=f"{call.function}: {error}")
        except (TypeError, ValueError) as error:
            return Raised(kind=type(error).__name__, message=f"{call.function}: {error}")

    async def _attempt(self, given: Mapping[str, Any], agent: str, origin: Origin) -> Performed:
        source, step = given["program"], f"step {origin.index}"
        try:
            run_id = await self.program(
                source, agent=agent, name=step, inputs={}, origin=origin, after=given.get("after"), keeps=True
            )
        except CheckFailed as error:
            return Returned(
                value={"run": None, "status": "refused", "is_kept": False, "messages": 1, "why": str(error)}
            )
        return Began(run_id=run_id)

    async def _spawn(self, given: Mapping[str, Any], call: Call, origin: Origin) -> str:
        program, goal, agent = given.get("program"), given.get("goal"), given.get("agent", call.agent)
        for each in ("program", "goal", "agent", "name", "model"):
            if not isinstance(given.get(each, ""), str):
                raise TypeError(f"{each} is a text")
        if (program is None) == (goal is None):
            raise ValueError("it takes a program or a goal, one of the two")
        if agent != call.agent and call.agent not in self._above(agent):
            raise Denied(
                f"agent {call.agent!r} begins runs of its own, and of agents below it; {agent!r} is not below it"
            )
        name = given.get("name", "")
        if goal is not None:
            limits = {key: given[key] for key in ("model", "steps", "usd", "seconds") if key in given}
            return await self.goal(goal, agent=agent, name=name, origin=origin, **limits)
        inputs = given.get("inputs", {})
        if not isinstance(inputs, dict) or not all(isinstance(key, str) for key in inputs):  # pyright: ignore[reportUnknownVariableType] - values are checked, not typed
            raise TypeError("inputs is a dict with names")
        return await self.program(program or "", agent=agent, name=name or "child", inputs=inputs, origin=origin)  # pyright: ignore[reportUnknownArgumentType] - the same

    def _above(self, agent: str) -> list[str]:
        """Return the agents above one."""
        found, upper = list[str](), self._config.agents.get(agent)
        while upper is not None and upper.parent and upper.parent not in found:
            found.append(upper.parent)
            upper = self._config.agents.get(upper.parent)
        return found

    async def _before(self, run_id: str, agent: str) -> dict[str, Value]:
        """Return with what a goal goes on from an earlier one: its run, and the last of its runs whose variables are kept."""
        run = await self._parts.store.run(run_id)
        if run is None or run.agent != agent:
            raise NotFound(f"agent {agent!r} has no run {run_id!r} to go on from: `overwinter ps --all` lists them")
        ended: Any = run.result
        if run.status is not Status.FINISHED or not isinstance(ended, dict) or "last" not in ended:
            raise UsageError(f"run {run_id} is no goal that has ended: only from such a run another goal goes on")
        last = cast("Any", ended["last"])
        try:
            if last is not None:
                await self.inherited(last, agent)
        except (TypeError, ValueError) as error:  # a program may end with whatever it likes
            raise UsageError(f"run {run_id} is no goal: it ended with {last!r} as its last program") from error
        return {"after": run_id, "last": last}

    def _inputs(self, goal: str, model: str, steps: int, usd: float | None, seconds: float | None) -> dict[str, Value]:
        if not goal.strip() or len(goal) > GOAL_CHARACTERS_MAX:
            raise UsageError(f"a goal is a text of at most {GOAL_CHARACTERS_MAX:,} characters that says something")
        if type(steps) is not int or not 1 <= steps <= STEPS_LIMIT:
            raise UsageError(f"steps is a whole number from 1 to {STEPS_LIMIT:,}, not {steps!r}")
        for key, value in (("usd", usd), ("seconds", seconds)):
            if value is not None and (type(value) not in (int, float) or not 0 < value <= LIMIT_MAX):
                raise UsageError(f"{key} is a number above 0, at most {LIMIT_MAX:,}, not {value!r}")
        named = model or self._config.gateway.model
        if not named:
            raise UsageError("no model is named: pass one of overwinter.toml, or set `[gateway] model`")
        try:
            self._parts.models.gateway.routes.one(named)
        except ModelRefused as error:
            raise NotFound(str(error)) from error
        return {
            "goal": goal, "model": named, "steps": steps, "usd": usd, "seconds": seconds, "refusals": REFUSALS_MAX,
        }  # fmt: skip


def _first_words(goal: str) -> str:
    text = " ".join(goal.split())
    return text if len(text) <= NAME_CHARACTERS else f"{text[: NAME_CHARACTERS - 3]}..."


def _told(agent: str, program: str, inputs: Mapping[str, Value]) -> Mapping[str, object]:
    """Return what tells a start from another one. The loop of a goal is ours, and may be another by now, with what it is told besides."""
    is_goal = program.startswith(LOOP_BEGINS)
    given = inputs.get("goal") if is_goal else dict(inputs)
    return {"another agent": agent, "another program": "" if is_goal else program, "other inputs": values.encode(given)}
