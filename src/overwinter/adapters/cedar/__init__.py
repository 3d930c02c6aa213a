"""Policy by Cedar: rules in `policies/*.cedar` and grants, decided by cedarpy."""

from overwinter.adapters.cedar.policy import CedarPolicy
from overwinter.adapters.cedar.rules import Grant, Rules, grants_of_agents, read_policies, rules_of, unread, without

__all__ = ["CedarPolicy", "Grant", "Rules", "grants_of_agents", "read_policies", "rules_of", "unread", "without"]
