"""Sends what webhooks are told: signed, to judged addresses alone, within a time limit, and nowhere further."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from overwinter.adapters.egress import Forbidden, Resolve, endpoint, resolved_by_system, session
from overwinter.adapters.references import References
from overwinter.adapters.vault import Vault
from overwinter.config import Webhook
from overwinter.errors import ConfigInvalid
from overwinter.frozen import frozen
from overwinter.webhook import key_of, signature

if TYPE_CHECKING:
    import aiohttp

__all__ = ["Senders", "Sent", "open_senders"]

AGENT = "overwinter"
OK, MULTIPLE_CHOICES, GONE = 200, 300, 410


@frozen
class Sent:
    """What an attempt came to."""

    why: str | None = None
    """Why it failed; None: the receiver took it."""
    retry_after_s: float | None = None
    """How long the receiver asks to be left alone."""
    is_final: bool = False
    """Whether another attempt would be refused as well."""


@asynccontextmanager
async def open_senders(
    webhooks: Mapping[str, Webhook], directory: Path, vault: Vault, resolve: Resolve = resolved_by_system
) -> "AsyncGenerator[Senders]":
    """Yield what sends for each webhook, with connections of its own, until the block is left."""
    async with AsyncExitStack() as stack:
        yield Senders(webhooks, directory, vault, resolve, stack)


class Senders:
    """The ways out of a home to its webhooks."""

    def __init__(
        self,
        webhooks: Mapping[str, Webhook],
        directory: Path,
        vault: Vault,
        resolve: Resolve,
        stack: AsyncExitStack,
    ) -> None:
        self._webhooks, self._directory, self._vault = webhooks, directory, vault
        self._resolve, self._stack = resolve, stack
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def send(self, name: str, message_id: str, timestamp_s: int, body: bytes) -> Sent:
        """Send one message to a webhook, once. Nothing is raised: what goes wrong is why it failed."""
        import aiohttp  # noqa: PLC0415 - it takes 0.2 s, and many homes have no webhooks

        webhook = self._webhooks[name]
        try:
            key = key_of(References(self._directory, self._vault).whole(webhook.secret, f"webhooks.{name}.secret"))
            there = endpoint(webhook.url, is_named=webhook.private)
        except (ConfigInvalid, Forbidden, ValueError) as error:
            return Sent(why=str(error))
        headers = {
            "content-type": "application/json",
            "user-agent": AGENT,
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": signature(key, message_id, timestamp_s, body),
        }
        try:
            connected = await self._session(name, is_named=webhook.private)
            async with connected.post(
                webhook.url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=webhook.timeout_s),
            ) as answer:
                return _judged(answer.status, answer.headers.get("retry-after"))  # what it says beside that is not read
        except TimeoutError:
            return Sent(why=f"{there.origin} did not answer within {webhook.timeout_s:g} s")
        except Forbidden as error:
            return Sent(why=str(error))
        except (aiohttp.ClientError, OSError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, Forbidden) else error
            return Sent(why=f"{there.origin} cannot be reached: {type(cause).__name__}: {cause}")

    async def _session(self, name: str, *, is_named: bool) -> "aiohttp.ClientSession":
        if name not in self._sessions:
            made = session(is_named=is_named, resolve=self._resolve)
            self._sessions[name] = await self._stack.enter_async_context(made)
        return self._sessions[name]


def _judged(status: int, retry_after: str | None) -> Sent:
    if OK <= status < MULTIPLE_CHOICES:
        return Sent()
    asked = float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
    words = "it was sent on elsewhere, where nothing is sent" if status // 100 == 3 else "refused"  # noqa: PLR2004 - redirects
    return Sent(why=f"{status}: {words}", retry_after_s=asked, is_final=status == GONE)
