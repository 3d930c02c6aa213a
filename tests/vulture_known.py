"""Names that only users, frameworks or Python itself call."""

import overwinter
from overwinter.adapters.monty.channel import Channel
from overwinter.config import Agent
from overwinter.faces import cli
from overwinter.faces.cli import identities, log_keys, models, policies, schedules, secrets, tokens, tools, webhooks
from overwinter.faces.cli.commands import Commands
from overwinter.faces.server import _Server

_ = (
    Agent.purpose,
    Channel.connection_lost,
    Channel.connection_made,
    Channel.data_received,
    _Server.capture_signals,
    _Server.should_exit,  # pyright: ignore[reportAttributeAccessIssue] - set by uvicorn in its constructor
    Commands.get_command,
    Commands.list_commands,
    cli.doctor,
    cli.gc,
    cli.init,
    cli.logs,
    cli.ps,
    cli.root,
    cli.show_run,
    identities.list_agents,
    identities.rotate_key,
    identities.show_agent,
    log_keys.print_key,
    log_keys.replace,
    log_keys.rotate,
    secrets.list_secrets,
    secrets.remove_secret,
    secrets.set_secret,
    models.list_models,
    models.try_models,
    policies.check_policy,
    policies.explain_policy,
    policies.reload_policy,
    policies.simulate_policy,
    policies.shadow_policy,
    policies.suggest_policy,
    tokens.create_token,
    tokens.list_tokens,
    tools.accept,
    tools.brief,
    tools.call_function,
    tools.describe,
    tools.list_services,
    tools.pins,
    tools.refresh,
    tools.search,
    schedules.add,
    schedules.list_schedules,
    schedules.pause,
    schedules.remove,
    schedules.resume,
    schedules.run_now,
    schedules.show,
    webhooks.list_webhooks,
    webhooks.retry_webhook,
    webhooks.try_webhook,
)
__getattr__ = overwinter.__getattr__
async_auth_flow = 0  # httpx2 calls it
_ = async_auth_flow
cache_read_tokens = provider_model = input_usd_per_mtok = output_usd_per_mtok = is_left_alone = 0  # shown as JSON
_ = (cache_read_tokens, provider_model, input_usd_per_mtok, output_usd_per_mtok, is_left_alone)
read_timeout = 0  # aiohttp's
_ = read_timeout
visit_JoinedStr = 0  # noqa: N816 - called by ast.NodeTransformer
_ = visit_JoinedStr
