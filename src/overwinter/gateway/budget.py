"""Hard limits on money: reserved before a call, settled after it, in whole nano-dollars.

A call holds what it can cost at most in every scope that it falls under, in one transaction, or in none. Whatever ends it
settles the hold exactly once. The sum of what is spent and what is held never passes a limit, by any number of callers in
any number of processes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Literal, Protocol

from overwinter.clock import SECOND_US
from overwinter.frozen import frozen
from overwinter.gateway.usage import Usage

__all__ = ["Budget", "Hold", "Ledger", "Line", "Reserved", "Scope", "Spent", "State", "Window", "bounds"]

Window = Literal["hour", "day", "month", "ever"]
"""Calendar hour, day or month in UTC; or without end."""

ScopeKind = Literal["tenant", "team", "agent", "run", "key"]

State = Literal["held", "settled", "unknown", "refused"]
"""Under way or left by a crash; done with a known cost; done, and nobody knows what it cost: the hold stays spent; or never
begun."""


@frozen
class Scope:
    """Whose money."""

    kind: ScopeKind
    name: str


@frozen
class Budget:
    """A limit for a scope in each of its windows; for money, calls, or both."""

    scope: Scope
    window: Window
    limit_nusd: int | None = None
    calls_max: int | None = None
    """A rate: how many calls may begin in a window."""


@frozen
class Hold:
    """What a call may cost at most, before it is made."""

    call: str
    """Names the call for ever: `run:index:attempt`, or the id of a request. A second hold of a name is no second one."""
    amount_nusd: int
    budgets: tuple[Budget, ...]
    """Every limit that it falls under, in the order of scope and window."""


class Reserved(Enum):
    """What became of a reservation."""

    HELD = auto()
    REFUSED = auto()
    """A limit would be passed; nothing was held anywhere."""
    REPEATED = auto()
    """The call has a hold, or a line, already."""


@frozen
class Spent:
    """How a budget stands in its window."""

    budget: Budget
    spent_nusd: int
    held_nusd: int
    calls: int
    until_us: int | None
    """When its window ends; None: never."""


@frozen
class Line:
    """One model call in the ledger: from its hold on, for ever."""

    call: str
    began_us: int
    agent: str
    run_id: str
    key: str
    """Id of the token that it came with; "" in-process."""
    dialect: str
    upstream: str
    model: str
    """As the client named it."""
    state: State = "held"
    priced_model: str = ""
    """By whose price it was settled."""
    held_nusd: int = 0
    cost_nusd: int | None = None
    saved_nusd: int = 0
    """What a cached answer would have cost."""
    usage: Usage | None = None
    status: str = ""
    """answered, cached, refused, partial, gone (the client left), failed; background: held while its answer is made."""
    ended_us: int | None = None
    answer_id: str = ""
    """The provider's name of the answer, by which a background one is asked for again."""
    found: Mapping[str, int] = field(default_factory=dict[str, int])
    """How often each class of confidential values was found in it and in its answer."""
    digest: str = ""
    """SHA-256 of what was asked, as it was to leave; hexadecimal."""
    rules: str = ""
    """Version of the rules by which it was decided."""
    policies: tuple[str, ...] = ()
    """Ids of those that decided it."""
    left_out: tuple[str, ...] = ()
    """Hints that a provider of another dialect did not get; for the log, no ledger keeps it."""


class Ledger(Protocol):
    """Budgets, holds and lines, durable. Every method is one transaction, and ends soon: nobody cuts a settlement short."""

    async def reserve(self, hold: Hold, line: Line) -> tuple[Reserved, Budget | None]:
        """Hold an amount in every budget, with its line; if refused, also the first budget that stood in the way."""
        ...

    async def extend(self, call: str, more_nusd: int, budgets: Sequence[Budget]) -> bool:
        """Hold more for a call under way, in every budget of its hold; False: a limit would be passed."""
        ...

    async def settle(self, line: Line) -> bool:
        """Book what a call cost and let go of its hold; False: somebody did before. A cost above the hold is booked whole."""
        ...

    async def wait(self, line: Line) -> None:
        """Write down of a held call that its answer goes on: its status, by whom it is made and under which name."""
        ...

    async def answered(self, answer_id: str, agent: str) -> Line | None:
        """Return the line of an agent's call that a provider answered under a name; of several the newest."""
        ...

    async def correct(self, line: Line, cost_nusd: int, *, by: str) -> Line:
        """Book what a call did cost whose cost was unknown, and return its line."""
        ...

    async def spent(self, budgets: Sequence[Budget]) -> Sequence[Spent]:
        """Return how budgets stand."""
        ...

    async def note(self, line: Line) -> None:
        """Write down a call that held nothing: it was refused, or got the answer that it had got before."""
        ...

    async def left(self) -> Sequence[Line]:
        """Return the lines still held by a process that is gone, oldest first."""
        ...


def bounds(window: Window, now_us: int) -> tuple[int, int | None]:
    """Return when the window of an instant begins and ends, microseconds UTC."""
    if window == "ever":
        return 0, None
    if window == "hour":
        start = now_us - now_us % (3_600 * SECOND_US)
        return start, start + 3_600 * SECOND_US
    if window == "day":
        start = now_us - now_us % (86_400 * SECOND_US)
        return start, start + 86_400 * SECOND_US
    first = datetime.fromtimestamp(now_us / SECOND_US, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (first + timedelta(days=32)).replace(day=1)
    return round(first.timestamp()) * SECOND_US, round(following.timestamp()) * SECOND_US
