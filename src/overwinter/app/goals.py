"""What goes on in a run that works at a goal: the conversation as its journal has it, and what the model says next.

See `brain`. Nothing of it is kept here but what saves reading a journal again.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from functools import lru_cache, partial
from typing import Any, cast

import anyio
import anyio.to_thread

from overwinter import brain, journal
from overwinter.adapters.models import Conversation
from overwinter.app.models import NUSD, Models
from overwinter.app.parts import Parts
from overwinter.app.starting import Starting
from overwinter.brain import Exchange
from overwinter.brief import brief
from overwinter.catalog import Performed
from overwinter.config import Config
from overwinter.events import Call, Event, Raised, Returned, Status
from overwinter.frozen import frozen, replace
from overwinter.gateway.budget import Budget, Scope
from overwinter.lineage import ATTEMPT
from overwinter.store import RunRecord
from overwinter.values import Value
from overwinter.waits import REPLY

__all__ = ["Goals"]

AHEAD_MAX = 64
"""Programs that wait to be checked ahead, the latest; others are checked when they are attempted, as they would be anyway."""
TALKS_MAX = 256
"""Conversations whose beginning is remembered."""
PURSES_MAX = 10_000
SYSTEMS_MAX = 64
GENERATIONS_MAX = 50
"""Goals that went on one from another."""
OUTPUT_TOKENS_MAX = 8_192
CHARACTERS_PER_TOKEN = 2
"""At least: so a conversation fits a window of tokens, whatever it is about."""


@frozen
class _Talk:
    """A conversation up to a place in its run's journal."""

    position: int = 0
    agent: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    functions: Mapping[int, str] = field(default_factory=dict[int, str])
    """Of the calls that have no answer yet, by index."""
    exchanges: tuple[Exchange, ...] = ()
    system: str = ""
    """"": the model was told nothing yet."""
    last: str | None = None
    """The last run of it whose variables are kept."""


@frozen
class _Said:
    """A program that a model has just said."""

    program: str
    agent: str
    after: str | None


class Goals:
    """Has models work at goals."""

    def __init__(self, config: Config, parts: Parts, models: Models, starting: Starting) -> None:
        self._config, self._parts, self._models, self._starting = config, parts, models, starting
        self._said = deque[_Said](maxlen=AHEAD_MAX)
        self._rung = anyio.Event()
        self._store = parts.store
        self._talks: dict[str, _Talk] = {}
        self._purses: dict[str, tuple[Budget, ...]] = {}
        self._shared = lru_cache(SYSTEMS_MAX)(str)
        """One object for what many agents are told alike."""

    async def run(self) -> None:
        """Check programs as soon as models have said them, until cancelled.

        Meanwhile the loop's own turn is taken and written down, so the run that attempts one finds it checked: a tenth of a step.
        """
        while True:
            await self._rung.wait()
            self._rung = anyio.Event()
            while self._said:
                said = self._said.popleft()
                # Whatever is wrong with it, whoever attempts it meets that again; and what a run says that it began with is
                # what anybody may have given it.
                with suppress(Exception):
                    await self._starting.foresee(said.program, agent=said.agent, after=said.after)

    async def reply(self, call: Call) -> Performed:
        """Have the model say what comes next in the conversation of the call's run."""
        talk = await self._talk(call.run_id)
        if not isinstance(talk.inputs.get("goal"), str):
            return Raised(
                kind="RuntimeError", message=f"{REPLY}: this run has no goal to speak of: tools.think asks a model"
            )
        earlier = await self._earlier(talk, call.agent)
        system = talk.system or self._system(call.agent)
        attempted = await self._attempted(call)
        prompt = await self._prompt(call, talk, attempted, is_first=not earlier)
        most = call.arguments.get("max_tokens", OUTPUT_TOKENS_MAX)
        turns = brain.conversation(
            [*earlier, *talk.exchanges], prompt, characters_max=self._window(talk.inputs["model"]) - len(system)
        )
        conversation = Conversation(model=talk.inputs["model"], system=system, turns=turns, max_tokens=most)
        said = await self._models.thinker.converse(call, conversation)
        if isinstance(said, Raised):
            return said
        is_cut = said.is_cut or brain.is_unclosed(said.text)
        program = None if is_cut else brain.program_in(said.text)
        if program:
            self._said.append(_Said(program=program, agent=call.agent, after=talk.last))
            self._rung.set()
        value: dict[str, Value] = {
            "prompt": prompt, "text": said.text, "program": program, "is_cut": is_cut,
            "cost_nusd": said.cost_nusd + (0 if attempted is None else self._cost(attempted)),
        }  # fmt: skip
        return Returned(value=value if talk.system else {**value, "system": system})

    async def purses(self, run_id: str) -> tuple[Budget, ...]:
        """Return what the goals above a call of a run may cost: a limit each, which all runs below it share."""
        known = self._purses.get(run_id)
        if known is None:
            run = await self._store.run(run_id)
            inputs = (await self._talk(run_id)).inputs
            source = None if run is None else await self._store.program(run.program_digest)
            is_goal = source is not None and source.startswith(brain.LOOP_BEGINS)
            limit = inputs.get("usd") if is_goal else None
            above = () if run is None or run.parent is None else await self.purses(run.parent)
            known = above
            if isinstance(
                limit, int | float
            ):  # anybody may start the loop's text as a program, with inputs of their own
                purse = Budget(scope=Scope(kind="run", name=run_id), window="ever", limit_nusd=round(limit * NUSD))
                known = (*above, purse)
            while len(self._purses) >= PURSES_MAX:
                del self._purses[next(iter(self._purses))]
            self._purses[run_id] = known
        return known

    # --- The conversation --------------------------------------------------------------------------------------------

    async def _talk(self, run_id: str) -> _Talk:
        talk = self._talks.pop(run_id, _Talk())
        while events := await self._store.journal(run_id, talk.position):
            talk = _followed(run_id, talk, events)
        while len(self._talks) >= TALKS_MAX:
            del self._talks[next(iter(self._talks))]
        self._talks[run_id] = talk
        return talk

    async def _earlier(self, talk: _Talk, agent: str) -> list[Exchange]:
        """Return what was said at the goals before this one: a program may name any run, so only those of its own agent."""
        found: list[Exchange] = []
        for _ in range(GENERATIONS_MAX):
            before = talk.inputs.get("after")
            if not isinstance(before, str):
                break
            talk = await self._talk(before)
            if talk.agent != agent:
                break
            found = [*talk.exchanges, *found]
        return found

    async def _prompt(self, call: Call, talk: _Talk, attempted: RunRecord | None, *, is_first: bool) -> str:
        ended = _table(call.arguments.get("attempted"))
        heard = cast("list[Value]", call.arguments.get("heard") or [])
        if not talk.exchanges:
            texts = [brain.goal_of(talk.inputs["goal"], is_first=is_first)]
        else:
            texts = [await self._observed(ended, attempted)] if ended else []
        return "\n".join([*texts, *([brain.heard(heard)] if heard else [])]) or "Go on."

    async def _attempted(self, call: Call) -> RunRecord | None:
        """Return the run of the program that a reply is about; None: there is none, or it is of another agent."""
        run_id = _table(call.arguments.get("attempted")).get("run")
        run = await self._store.run(run_id) if isinstance(run_id, str) else None
        return None if run is None or run.agent != call.agent else run

    async def _observed(self, ended: Mapping[str, Any], run: RunRecord | None) -> str:
        """Return what came of a program, as the model is told it."""
        match ended.get("status"):
            case "refused":
                return str(ended.get("why"))
            case "cut":
                return "Your reply ended inside a block, or at its length limit, so nothing of it ran. Write a shorter program, and close its block."
            case "silent":
                return "You said nothing. Reply with a program in a ```python block, or with your answer."
            case _:
                return await self._came_of(run) if run is not None else "Nothing is known of that program any more."

    async def _came_of(self, run: RunRecord) -> str:
        printed = await self._parts.handles.printed(run)
        if run.status is Status.FINISHED:
            return await anyio.to_thread.run_sync(partial(brain.finished, run.run_id, run.result, printed))
        deeds, since = journal.Deeds(), 0
        while events := await self._store.journal(run.run_id, since):
            since = events[-1].position + 1
            for event in events:
                deeds.see(event)
        return brain.failed(run.run_id, run.result or {}, printed, deeds.told)

    def _system(self, agent: str) -> str:
        discovery = self._parts.sources.discovery
        counts = discovery.counts(agent)
        names = [hit.name for service in counts for hit in discovery.browse(agent, service)]
        is_short = 0 < sum(counts.values()) <= brain.SIGNATURES_MAX
        text = brain.instructions(brief(counts), discovery.describe(agent, names) if is_short and names else "")
        return self._shared(text)

    def _window(self, model: str) -> int:
        declared = self._config.models.get(model)
        tokens = declared.input_tokens_max if declared is not None else 0
        known = tokens * CHARACTERS_PER_TOKEN if tokens else brain.WINDOW_CHARACTERS
        return min(brain.WINDOW_CHARACTERS, known)

    def _cost(self, run: RunRecord) -> int:
        """Return what the model calls of the program before cost, which the loop counts with this one."""
        # From its beginning on: the ledger has all calls of the home, and no index by run.
        lines = self._models.lines(limit=1_000, wanted={"run": run.run_id, "agent": run.agent}, since_us=run.created_us)
        return sum(line.cost_nusd or 0 for line in lines)


def _table(value: Value) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _followed(run_id: str, talk: _Talk, events: Sequence[Event]) -> _Talk:
    """Return a conversation with what more of its run's journal says."""
    functions, exchanges, inputs, system = dict(talk.functions), list(talk.exchanges), talk.inputs, talk.system
    agent, last = talk.agent, talk.last
    for event in events:
        body = event.body
        match event.kind:
            case "created":
                inputs, agent = body["inputs"], body["agent"]
                last = inputs["last"] if isinstance(inputs.get("last"), str) else None
            case "called":
                functions[body["index"]] = body["function"]
            case "answered":
                function, value = functions.pop(body["index"], ""), _table(body.get("value"))
                if function == REPLY and value:
                    handle = f"{run_id}:{body['index']}"
                    exchanges.append(Exchange(handle=handle, prompt=value["prompt"], text=value["text"]))
                    system = value.get("system", system)
                elif function == ATTEMPT and value.get("is_kept"):
                    last = value["run"]
            case _:
                pass
    return replace(
        talk, position=events[-1].position + 1, agent=agent, inputs=inputs, functions=functions, exchanges=tuple(exchanges),
        system=system, last=last,
    )  # fmt: skip
