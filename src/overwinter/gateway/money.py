"""What a call may cost at most, before it is made; what it did cost, after it."""

from collections.abc import Mapping, Sequence

from overwinter.clock import SECOND_US, Clock
from overwinter.frozen import replace
from overwinter.gateway.attempts import Limit, Seen
from overwinter.gateway.background import has_ended, unknown, waiting
from overwinter.gateway.budget import Budget, Hold, Ledger, Line, Reserved, bounds
from overwinter.gateway.dialect import Asked
from overwinter.gateway.prices import Bound, Prices, Unpriced, bill, bill_at_default, bound_nusd
from overwinter.gateway.refusal import ModelRefused, Refusal
from overwinter.gateway.routes import Target
from overwinter.gateway.usage import Usage

__all__ = ["Accounts", "Allowance"]

NUMBERED_MAX = 16
"""Calls begun under one name, after a crash in the middle of the last or after it failed, that get a number of their own."""
FREE = frozenset({"count"})
"""Operations that no provider bills."""


class Accounts:
    """Holds and settles what calls cost."""

    def __init__(self, ledger: Ledger, prices: Prices, clock: Clock) -> None:
        self._ledger, self._prices, self._clock = ledger, prices, clock

    def bound(self, asked: Asked, budgets: Sequence[Budget], target: Target) -> Bound:
        """Return the most that a call can cost; without a budget nothing is held.

        Raises:
            ModelRefused: a budget applies, and there is no such bound.
        """
        if asked.operation not in ("generate", "embed") or all(each.limit_nusd is None for each in budgets):
            return Bound()
        declared, provider = target.declared, target.provider.prices
        window = declared.input_tokens_max or self._prices.window(provider, target.model)
        unbounded = asked.unbounded
        if unbounded and window is None:
            message = (
                f"under a budget, {', '.join(unbounded)} brings input of unknown size: set input_tokens_max of model "
                f"{declared.name}"
            )
            raise ModelRefused(Refusal(why="unpriced", message=message))
        if asked.served and declared.served_nusd_max is None:
            message = (
                f"under a budget, {', '.join(asked.served)} may cost whatever the provider makes of it: say how much with tools_usd "
                f"of model {declared.name}, or leave it out"
            )
            raise ModelRefused(Refusal(why="unpriced", message=message))
        size = asked.size_bytes if window is None else min(asked.size_bytes, window)
        input_tokens = window if unbounded and window is not None else size
        output_tokens, injected = 0, None
        if asked.operation == "generate":
            injected = declared.output_tokens_max if asked.output_tokens_max is None else None
            output_tokens = (asked.output_tokens_max or declared.output_tokens_max) * asked.choices
        try:
            # A provider may answer a cheap tier at the default one, and bill that.
            rates = [self._prices.rates(provider, target.model, each, input_tokens) for each in {asked.tier, ""}]
        except Unpriced as error:
            message = (
                f"{target.model} has no price ({error}), and a budget cannot be kept without: add it to prices.toml"
            )
            raise ModelRefused(Refusal(why="unpriced", message=message)) from error
        besides = (declared.served_nusd_max or 0) if asked.served else 0
        nusd = max(bound_nusd(each, input_tokens, output_tokens) for each in rates) + besides
        return Bound(nusd=nusd, output_tokens_max=injected)

    async def reserve(self, line: Line, budgets: Sequence[Budget], nusd: int, *, is_named: bool) -> Line:
        """Hold an amount in every budget or in none, and return the line that holds it.

        A named call whose last process died in the middle is begun again under a name of its own: what that one may have
        cost stays held until somebody says what became of it.

        Raises:
            ModelRefused: a budget is spent, or a call of this name is under way.
        """
        for number in range(1, NUMBERED_MAX + 1):
            held = line
            if nusd or number > 1:
                again = f"{line.call}~{number if number < NUMBERED_MAX else line.began_us}"
                held = replace(line, call=line.call if number == 1 else again, held_nusd=nusd)
            reserved, budget = await self._ledger.reserve(
                Hold(call=held.call, amount_nusd=nusd, budgets=tuple(budgets)), held
            )
            match reserved:
                case Reserved.HELD:
                    return held
                case Reserved.REFUSED:
                    raise ModelRefused(_spent(budget, nusd, self._clock.now_us()))
                case Reserved.REPEATED if not is_named:
                    break
                case Reserved.REPEATED:
                    pass
        message = f"call {line.call} was begun before and has not ended: ask again later, or under another key"
        raise ModelRefused(Refusal(why="repeated", message=message, retry_after_s=1.0))

    async def extend(self, line: Line, budgets: Sequence[Budget], nusd: int) -> bool:
        """Hold more for a call under way; False: a budget does not have it."""
        return await self._ledger.extend(line.call, nusd, budgets)

    async def settle(self, line: Line, *, status: str, found: Mapping[str, int], answer_id: str) -> Line:
        """Book a call as it ended, once, and return its line."""
        settled = replace(
            line, state="settled", ended_us=self._clock.now_us(), status=status, found=found, answer_id=answer_id
        )
        await self._ledger.settle(settled)
        return settled

    async def wait(self, line: Line, tries: Sequence[Seen]) -> Line:
        """Leave a call held whose answer its provider goes on with, and return its line."""
        held = waiting(line, tries[-1])
        await self._ledger.wait(held)
        return held

    async def answered(self, answer_id: str, agent: str) -> Line | None:
        """Return the line of an agent's call by the name of its answer."""
        return await self._ledger.answered(answer_id, agent)

    async def see(self, line: Line, tries: Sequence[Seen]) -> tuple[Line, bool]:
        """Return the line of a call whose answer was asked for again, and whether this was the first sight of its end.

        It is settled then. What was booked as unknown meanwhile is put right if the provider says what it was.
        """
        if line.state == "settled" or not tries or not has_ended(tries[-1].tap):
            return line, False
        tap = tries[-1].tap
        told = self.told(line, tries[-1:])
        is_known = tap.usage is not None and told.usage is not None and told.usage.source == "provider"
        if line.state == "unknown":
            return (await self._ledger.correct(line, told.cost_nusd or 0, by="provider") if is_known else line), False
        ended = replace(told, state="settled", status="answered") if is_known else unknown(line, tap.stop)
        ended = replace(ended, ended_us=self._clock.now_us())
        return ended, await self._ledger.settle(ended)

    async def note(self, line: Line) -> None:
        """Write down a call that held nothing, beside those of its name that did."""
        await self._ledger.note(replace(line, call=f"{line.call}!{line.began_us}"))

    def told(self, line: Line, tries: Sequence[Seen], *, status: str = "") -> Line:
        """Return the line of a call with what its tries used and cost: the last one's counts, the others beside it."""
        status = status or line.status
        if not tries or tries[-1].tap.asked.operation in FREE:
            name = tries[-1].target.provider.name if tries else line.upstream
            return replace(line, usage=Usage(), cost_nusd=0, upstream=name, status=status)
        usage, cost = Usage(), 0
        for number, each in enumerate(tries):
            used, nusd = self._one(each)
            also = (*used.also, replace(usage, model=tries[number - 1].target.model)) if number else used.also
            usage, cost = replace(used, also=also), cost + nusd
        last = tries[-1]
        return replace(
            line, usage=usage, cost_nusd=cost, upstream=last.target.provider.name, priced_model=last.target.model,
            answer_id=last.tap.answer_id, status=status,
        )  # fmt: skip

    def _one(self, seen: Seen) -> tuple[Usage, int]:
        """Return what one try used, and what it cost.

        Nobody knows what an answer costs that its provider makes to its end although nobody waits for it: the books take the most
        that it can, where a budget had that worked out. No estimate is more than that.
        """
        used, tap, prices, model = seen.tap.used, seen.tap, seen.target.provider.prices, seen.target.model
        most_nusd = seen.most_nusd
        try:
            nusd = bill(self._prices, prices, model, used)
        except Unpriced:
            used, nusd = replace(used, source="unknown"), bill_at_default(self._prices, prices, model, used)
        if tap.has_served and not used.searches:
            # Nobody says how often: by the operator's word, as it was held.
            nusd += seen.target.declared.served_nusd_max or 0
        if tap.is_silent:
            return replace(used, source="unknown"), most_nusd or nusd
        return used, min(nusd, most_nusd) if most_nusd and used.source == "estimated" else nusd


class Allowance(Limit):
    """Asks for what another try may cost: one that its provider refused cost nothing, so its hold serves again."""

    def __init__(
        self, accounts: Accounts, asked: Asked, budgets: Sequence[Budget], line: Line, injected: int | None
    ) -> None:
        self._accounts, self._budgets, self._line = accounts, budgets, line
        # The limit that was put into the request is the first target's, whatever another one's is.
        self._asked = asked if injected is None else replace(asked, output_tokens_max=injected)
        self._held_nusd = self.most_nusd = line.held_nusd

    async def more(self, target: Target, tries: Sequence[Seen]) -> bool:
        """Whether another try may be paid for."""
        try:
            bound = self._accounts.bound(self._asked, self._budgets, target)
        except ModelRefused:
            return False
        missing = bound.nusd + (self._accounts.told(self._line, tries).cost_nusd or 0) - self._held_nusd
        if missing > 0:
            if not await self._accounts.extend(self._line, self._budgets, missing):
                return False
            self._held_nusd += missing
        self.most_nusd = bound.nusd
        return True


def _spent(budget: Budget | None, nusd: int, now_us: int) -> Refusal:
    assert budget is not None, "who refuses says which budget"
    whose = f"the budget of {budget.scope.kind} {budget.scope.name}"
    if budget.limit_nusd is None:
        message = f"{whose} lets {budget.calls_max} calls begin in each {budget.window}: wait, or raise it"
        _, until_us = bounds(budget.window, now_us)
        after_s = None if until_us is None else (until_us - now_us) / SECOND_US
        return Refusal(why="rate", message=message, retry_after_s=after_s)
    message = (
        f"{whose}, {budget.limit_nusd / 1e9:g} USD for each {budget.window}, does not hold this call: it may cost "
        f"{nusd / 1e9:.6f} USD"
    )
    return Refusal(why="budget", message=message)
