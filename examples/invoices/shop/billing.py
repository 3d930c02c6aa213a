"""The billing service as tools. `charge` sends the call's key, which the service honours; `transfer` cannot.

`BILLING_URL` says where the service is.
"""

import os
from typing import Any, TypedDict

import aiohttp

from overwinter import CallError, Key, OutcomeUnknown, idempotent, read, write

TIMEOUT_S = 1.0
_session: list[aiohttp.ClientSession] = []


class Receipt(TypedDict):
    movement: int
    amount_cents: int


@idempotent(timeout_s=5, attempts_max=8)
async def charge(*, invoice_id: int, amount_cents: int, key: Key) -> Receipt:
    """Charge a customer's card."""
    return await _post("/charges", {"invoice_id": invoice_id, "amount_cents": amount_cents}, key=key)


@write(timeout_s=5)
async def transfer(*, invoice_id: int, amount_cents: int) -> Receipt:
    """Order a bank transfer. The bank has no idempotency keys: what is sent twice is done twice."""
    return await _post("/transfers", {"invoice_id": invoice_id, "amount_cents": amount_cents}, key=None)


@read(timeout_s=5)
async def movements(*, invoice_id: int) -> list[Receipt]:
    """What was moved for an invoice, by the service's own ledger."""
    async with _http().get(f"/movements?invoice_id={invoice_id}") as response:
        return (await response.json())["movements"]


async def _post(path: str, body: dict[str, Any], *, key: Key | None) -> Receipt:
    async with _http().post(path, json=body, headers={"Idempotency-Key": key} if key else {}) as response:
        answer = await response.json()
        if response.status < 400:
            return answer
        if response.status >= 500 and key is None:
            raise OutcomeUnknown(f"the bank answered {response.status}: {answer['message']}")
        pause = response.headers.get("Retry-After")
        raise CallError(
            answer["message"],
            status=response.status,
            code=answer["code"],
            retry_after_s=float(pause) if pause else None,
        )


async def _close() -> None:
    """Awaited by overwinter when the home closes."""
    for session in _session:
        await session.close()


def _http() -> aiohttp.ClientSession:
    """One session for all calls, made in the event loop that uses it."""
    if not _session or _session[0].closed:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        _session[:] = [aiohttp.ClientSession(os.environ["BILLING_URL"], timeout=timeout)]
    return _session[0]
