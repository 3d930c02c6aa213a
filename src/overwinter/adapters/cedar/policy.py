"""The policy of a home by Cedar: the rules of this moment, and those that are only tried."""

from collections.abc import Callable, Mapping

from overwinter.adapters.cedar.deciding import REMEMBERED_MAX, Act, Version, decided
from overwinter.adapters.cedar.rules import Rules
from overwinter.adapters.cedar.shadow import Shadow
from overwinter.policy import Action, Allow, Decision, Resource
from overwinter.principal import Principal
from overwinter.values import Value

__all__ = ["CedarPolicy"]


class CedarPolicy:
    """The policy of a home: `policies/*.cedar` and grants, each call decided for every agent of its chain."""

    def __init__(self, rules: Rules, now_s: Callable[[], int]) -> None:
        """Decide by these rules.

        Args:
            rules: what holds now.
            now_s: seconds since 1970, for rules and grants that speak of time.
        """
        self._version = Version(rules)
        self._now_s = now_s
        self.shadow = Shadow(rules, now_s()) if rules.shadows else None
        """Rules that are only tried, and what they would have changed."""

    @property
    def present(self) -> Version:
        """Return the rules that hold now with what was parsed of them, for looking into."""
        return self._version

    @property
    def rules(self) -> Rules:
        """Return the rules that hold now; an approval is bound to their digest."""
        return self._version.rules

    def replace(self, rules: Rules) -> None:
        """Decide by other rules from now on. A decision under way ends by the rules with which it began."""
        before = self._version.rules
        if (rules.digest, rules.shadows, rules.faults) == (before.digest, before.shadows, before.faults):
            return
        self._version = Version(rules)
        if not rules.shadows:
            self.shadow = None
        elif self.shadow is None or self.shadow.rules != rules.shadows:
            self.shadow = Shadow(rules, self._now_s())
        else:
            self.shadow.follow(rules)

    def decide(
        self,
        principal: Principal,
        action: Action,
        resource: Resource,
        arguments: Mapping[str, Value],
        *,
        approved: bool = False,
    ) -> Decision:
        """Return the decision of the whole chain: no if one says no, asked if one asks, yes if all say yes."""
        act = Act(principal=principal, action=action, resource=resource, arguments=arguments)
        decision = self._decided(act, approved=approved)
        if self.shadow is not None and action != "see" and not approved:
            self.shadow.beside(act, decision, self._now_s())
        return decision

    def _decided(self, act: Act, *, approved: bool) -> Decision:
        version, principal, action, resource = self._version, act.principal, act.action, act.resource
        # Each step of a goal is a run with a name of its own; where no rule looks at it, one decision is good for all.
        is_any_run = action == "wake" and not version.minds_run(act)
        key = (principal.chain, principal.owner, action, None if is_any_run else resource, approved)
        if (settled := version.settled.get(key)) is not None:
            return settled
        decision = decided(version, act, self._now_s(), approved=approved)
        is_whole = not is_any_run or isinstance(decision, Allow)  # a no names its run
        is_kept = is_whole and action in ("call", "wake", "think") and version.is_plain(act)
        if is_kept and len(version.settled) < REMEMBERED_MAX:
            version.settled[key] = decision
        return decision

    @property
    def version(self) -> str:
        """Return the digest of the rules that hold now."""
        return self._version.rules.digest

    @property
    def fault(self) -> str:
        """Return why the rules cannot be read, "" if they can."""
        return self._version.rules.fault
