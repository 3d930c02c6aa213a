"""Who may act in a home, and what stops them: agents, approvals, revocation."""

from collections.abc import Callable, Sequence

import anyio

from overwinter import journal
from overwinter.actor import Actor
from overwinter.app.inbox import vote_key
from overwinter.app.models import Models
from overwinter.approval import Gate, Vote, approvers
from overwinter.clock import SECOND_US, Clock
from overwinter.config import Config
from overwinter.errors import Conflict, Denied, HomeError, NotFound
from overwinter.events import Call, Event, Raised, Status
from overwinter.frozen import frozen
from overwinter.identity import Identity
from overwinter.policy import Allow
from overwinter.registry import Registry
from overwinter.store import CallRecord, Store, Voted
from overwinter.turn import Means, approvable, permitted
from overwinter.worker import Worker

__all__ = ["Governance", "Revocation"]


OWED_PAUSE_US = 10 * SECOND_US
"""Pause before it is offered again to a store that could not take it."""


@frozen
class Revocation:
    """What a revocation stopped."""

    identities: Sequence[Identity]
    """The agents that were active, as they are now."""
    runs: int
    """Their runs that had not ended: none of them goes on, wakes or is tried again."""
    turns: int
    """Programs that were computing; their interpreters were killed."""
    calls: int
    """Calls in flight that were cancelled."""
    model_calls: int = 0
    """Model calls of other clients under its identity that were cut."""
    on_the_wire: Sequence[Call]
    """Calls that may have left before: what has left cannot be called back. Each has its key."""
    fenced_us: int
    """From the request to the commit after which no effect starts."""
    stopped_us: int
    """From the request to the end of everything that was under way."""


class Governance:
    """The agents of a home."""

    def __init__(  # noqa: PLR0913, PLR0917 - made by App alone
        self,
        config: Config,
        store: Store,
        registry: Registry,
        worker: Worker,
        means: Means,
        clock: Clock,
        models: Models,
        acted: Callable[[], None],
    ) -> None:
        self._config, self._store, self._registry = config, store, registry
        self._worker, self._means, self._models, self._clock = worker, means, models, clock
        self._acted = acted
        """Called once a person's act is in the audit log."""
        self._owing = anyio.Event()
        """Set when the store could not take what follows a revocation."""

    async def enrol(self) -> None:
        """Write down the agents of `overwinter.toml`. Those that are not in it any more are revoked; one without agents declares nothing."""
        await self._registry.enrol([
            Identity(
                name=name, owner=agent.owner, purpose=agent.purpose, parent=agent.parent or None,
                expires_us=agent.expires_us, models=agent.models,
            )
            for name, agent in self._config.agents.items()
        ], is_whole=self._config.agents != Config().agents)  # fmt: skip
        await self._registry.strand()

    async def identities(self) -> Sequence[Identity]:
        """Return every agent, by name."""
        return await self._registry.identities()

    async def identity(self, agent: str) -> Identity:
        """Return one agent.

        Raises:
            NotFound: there is none.
        """
        found = next((each for each in await self._registry.identities() if each.name == agent), None)
        if found is None:
            raise NotFound(f"there is no agent {agent!r}: `overwinter agents` lists them")
        return found

    async def revoke(self, agent: str, *, by: str, reason: str = "") -> Revocation:
        """Revoke an agent and all below it: one commit, then whatever is under way is stopped.

        No effect of theirs starts after the commit, anywhere, because starting one is a commit that it refuses. Revoking
        again stops what is left and changes nothing.

        Raises:
            NotFound: there is no such agent.
        """
        await self.identity(agent)
        began_us = self._clock.now_us()
        revoked = await self._registry.revoke(agent, by=by, reason=reason)
        fenced_us = self._clock.now_us() - began_us
        names = {each.name for each in revoked} | {agent}
        self._acted()
        cutting = self._models.cut(names, f"agent {agent!r} was revoked")
        stopped = await self._worker.revoked(names)
        model_calls = await cutting.ended()
        stopped_us = self._clock.now_us() - began_us
        await self._strand()
        counts = await self._store.counts(names)
        return Revocation(
            identities=revoked,
            runs=counts.get(Status.LIVE, 0) + counts.get(Status.QUARANTINED, 0),
            turns=len(stopped.turns),
            calls=len(stopped.cut),
            model_calls=model_calls,
            on_the_wire=[each.call for each in stopped.cut if each.has_left],
            fenced_us=fenced_us,
            stopped_us=stopped_us,
        )

    async def _strand(self) -> None:
        """Cancel the runs of revoked agents that runs of others wait for. A store that cannot take it now makes nobody less revoked."""
        try:
            await self._registry.strand()
        except HomeError:
            self._owing.set()

    async def run(self) -> None:
        """Do what the store could not take when it was due, until cancelled."""
        while True:
            await self._owing.wait()
            self._owing = anyio.Event()
            await self._clock.sleep_until(self._clock.now_us() + OWED_PAUSE_US)
            await self._strand()

    async def revoke_run(self, run_id: str, *, by: str, reason: str = "") -> Revocation:
        """End one run, and those that it began, as a revocation does: one commit, then whatever of it is under way is stopped.

        Raises:
            Conflict: it had ended.
        """
        began_us = self._clock.now_us()
        event = Event(kind="cancelled", body={"by": by, "reason": reason or "revoked"})
        family = [run_id, *await self._store.descendants(run_id)]
        is_ended = await self._store.end(run_id, Status.CANCELLED, event, is_first=True)
        fenced_us = self._clock.now_us() - began_us
        self._acted()
        cuttings = [self._models.cut_run(each, f"run {run_id} was revoked") for each in family]
        stopped = [await self._worker.interrupt(each) for each in family]
        model_calls = sum([await cutting.ended() for cutting in cuttings])
        if not is_ended:
            raise Conflict(f"run {run_id} had ended before")
        return Revocation(
            identities=(),
            runs=len(family),
            turns=sum(len(each.turns) for each in stopped),
            calls=sum(len(each.cut) for each in stopped),
            model_calls=model_calls,
            on_the_wire=[each.call for one in stopped for each in one.cut if each.has_left],
            fenced_us=fenced_us,
            stopped_us=self._clock.now_us() - began_us,
        )

    async def vote(  # noqa: PLR0913 - what a person says, and of what
        self,
        record: CallRecord,
        *,
        is_yes: bool,
        by: str | Actor,
        reason: str = "",
        shown: bytes | None = None,
        dedup: str | None = None,
    ) -> Voted:
        """Approve a gated call, or reject it. The rules are asked again: what they say now decides.

        Args:
            record: the call, as the store has it now.
            is_yes: approve; else reject.
            by: the person who says so; a text is one whom the caller knows.
            reason: for the record, and for the program if it is a no.
            shown: digest of what the person looked at; None: of what the call waits for now.
            dedup: a second time with the same key is the first one again.

        Raises:
            Denied: this person is not asked, or the rules forbid them a yes.
            Conflict: it was let through or rejected before, has changed since it was shown, or it is too late for a yes.
        """
        gate, call = record.gate, record.call
        by = Actor(person=by) if isinstance(by, str) else by
        if gate is None or gate.is_used:
            raise Conflict(f"call {call.key} waits for no approval")
        self._admit(call, gate, by, is_yes=is_yes)
        asked = permitted(call, record.agent_epoch, self._means, self._clock.now_us(), standing=gate)
        if is_yes and isinstance(asked, Raised):
            is_yes, reason = False, f"the rules forbid it by now: {asked.message}"
        elif isinstance(asked, Gate) and asked.digest != gate.digest:
            (lease, *_) = await self._store.claim()
            await self._store.gate(call, lease, asked, journal.gated(call, asked))
            raise Conflict(f"call {call.key} is asked under other rules or definitions by now: look at it again")
        vote = Vote(person=by.person, is_yes=is_yes, reason=reason, known=str(by))
        words = f"{by} rejected {call.function}" + (f": {reason}" if reason else "")
        answer = Raised(kind="PermissionError", message=words, status=403, code="rejected")
        key = None if dedup is None else vote_key(call.index, dedup)
        voted = await self._store.vote(call, gate.digest if shown is None else shown, vote, answer, dedup=key)
        self._acted()
        match voted:
            case Voted.LET_THROUGH:
                self._worker.ring(0)
            case Voted.OTHER:
                raise Conflict(f"call {call.key} has changed since it was shown: look at it again")
            case Voted.EXPIRED:
                raise Conflict(f"it is too late to approve call {call.key}: the program is told that nobody did")
            case Voted.GONE:
                raise Conflict(f"call {call.key} was let through, rejected or stopped before")
            case Voted.COUNTED | Voted.REJECTED:
                pass
        return voted

    def _admit(self, call: Call, gate: Gate, by: Actor, *, is_yes: bool) -> None:
        if is_yes and self._means.policy.fault:
            raise Denied(f"nothing can be approved while the rules cannot be read: {self._means.policy.fault}")
        if by.person not in approvers(gate):
            raise Denied(f"{gate.approver} must approve call {call.key}, not {by.person}: --as says for whom you act")
        needed = sum(each.count for each in gate.needs)
        if by.is_claimed and needed > 1:
            raise Denied(f"{needed} people must approve call {call.key}, and a claimed name is no other person: {by}")
        if is_yes and not isinstance(decision := approvable(call, by.person, self._means), Allow):
            raise Denied(decision.reason)

    async def restore(self, agent: str, *, by: str, reason: str = "", has_runs: bool = False) -> Identity:
        """Make a revoked agent active in a new epoch; its earlier runs go on only with `has_runs`.

        Raises:
            NotFound: there is no such agent.
            Conflict: it is not revoked and no run of it is stopped, or one above it is revoked.
        """
        await self.identity(agent)
        restored = await self._registry.restore(agent, by=by, reason=reason, has_runs=has_runs)
        if restored is None:
            if not (await self.identity(agent)).is_revoked:
                stopped = (
                    " and none of its runs is stopped"
                    if has_runs
                    else "; --runs takes along runs that are still stopped"
                )
                raise Conflict(f"agent {agent!r} is not revoked{stopped}")
            raise Conflict(f"an agent above {agent!r} is revoked: restore that one first")
        await self._strand()
        self._acted()
        self._worker.ring(0)
        return restored
