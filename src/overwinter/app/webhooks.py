"""Tells others what happens here: one loop a webhook, so that a slow receiver holds back nobody but itself.

A fact is delivered at least once: a crash between the receiver's yes and our commit sends it again, under the same `webhook-id`.
Facts may arrive in another order than they happened; `position` orders those of a run.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Any

import anyio

from overwinter.adapters.sqlite import SqliteDeliveries
from overwinter.adapters.webhooks import Senders, Sent
from overwinter.clock import SECOND_US, Clock
from overwinter.config import Webhook
from overwinter.errors import HomeError, NotFound
from overwinter.events import Event
from overwinter.frozen import frozen
from overwinter.readable import readable
from overwinter.schedule import Schedules
from overwinter.store import RunRecord, Store
from overwinter.values import Value
from overwinter.webhook import ATTEMPTS_MAX, TEST, Delivery, Tally, pause_s

__all__ = ["Standing", "Webhooks"]

IN_FLIGHT_MAX = 4
"""Requests at once to one receiver."""
STORE_PAUSE_S = 1.0
ARGUMENTS_BYTES_MAX = 256 << 10
"""Of JSON. Larger arguments are left out, and said to be: whoever is asked looks them up."""


@frozen
class Standing:
    """A webhook and what is open for it."""

    name: str
    webhook: Webhook | None
    """None: it is gone from the configuration; what was open for it goes with its runs."""
    tally: Tally


class Webhooks:
    """The webhooks of a home."""

    def __init__(  # noqa: PLR0913, PLR0917 - made by App alone
        self,
        webhooks: Mapping[str, Webhook],
        deliveries: SqliteDeliveries,
        senders: Senders,
        store: Store,
        schedules: Schedules,
        clock: Clock,
        random: Random,
    ) -> None:
        self._webhooks, self._deliveries, self._senders = webhooks, deliveries, senders
        self._store, self._schedules, self._clock, self._random = store, schedules, clock, random

    async def subscribe(self) -> None:
        """Have every fact from now on noted for those who want it, whether or not anybody sends it yet."""
        await self._deliveries.subscribe(
            [(name, each) for name, hook in self._webhooks.items() for each in hook.events]
        )

    async def run(self) -> None:
        """Send what is due, until cancelled."""
        async with anyio.create_task_group() as group:
            for name in self._webhooks:
                group.start_soon(self._serve, name)

    async def standing(self) -> Sequence[Standing]:
        """Return every webhook, by name."""
        tallies = {each.webhook: each for each in await self._deliveries.tallies()}
        names = sorted({*self._webhooks, *tallies})
        nothing = partial(Tally, waiting=0, set_aside=0, why="")
        return [
            Standing(name=name, webhook=self._webhooks.get(name), tally=tallies.get(name) or nothing(webhook=name))
            for name in names
        ]

    async def retry(self, name: str) -> int:
        """Send now whatever waits for a webhook or was set aside; return how many that are.

        Raises:
            NotFound: there is no such webhook.
        """
        self._known(name)
        return await self._deliveries.again(name)

    async def test(self, name: str) -> Sent:
        """Send a webhook a message that tells nothing, and return what came of it.

        Raises:
            NotFound: there is no such webhook.
        """
        self._known(name)
        now_us = self._clock.now_us()
        body = _encoded(TEST, now_us, {"webhook": name})
        return await self._senders.send(name, f"test_{now_us}", now_us // SECOND_US, body)

    def _known(self, name: str) -> None:
        if name not in self._webhooks:
            raise NotFound(f"there is no webhook {name!r} in overwinter.toml: `overwinter webhooks` lists them")

    async def _serve(self, name: str) -> None:
        while True:
            rung = self._deliveries.rung
            try:
                due = self._deliveries.due(name, self._clock.now_us(), IN_FLIGHT_MAX)
                next_us = self._deliveries.next_us(name)
            except HomeError:
                await anyio.sleep(STORE_PAUSE_S)
                continue
            async with anyio.create_task_group() as group:
                for each in due:
                    group.start_soon(self._deliver, each)
            if not due:
                await self._until(rung, next_us)

    async def _until(self, rung: anyio.Event, next_us: int | None) -> None:
        """Wait until something may have come, or it is time for the next attempt."""
        if next_us is None:
            await rung.wait()
            return
        async with anyio.create_task_group() as group:

            async def heard() -> None:
                await rung.wait()
                group.cancel_scope.cancel()

            group.start_soon(heard)
            await self._clock.sleep_until(next_us)
            group.cancel_scope.cancel()

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            await self._settle(delivery, await self._attempt(delivery))
        except HomeError:  # the disk is in trouble: what was sent is sent again
            await anyio.sleep(STORE_PAUSE_S)

    async def _attempt(self, delivery: Delivery) -> Sent:
        try:
            body = await self._told(delivery)
        except HomeError:
            raise
        except Exception as error:  # noqa: BLE001 - one fact that cannot be told must not end the home
            return Sent(why=f"{type(error).__name__}: {error}", is_final=True)
        if body is None:
            return Sent()
        now_s = self._clock.now_us() // SECOND_US
        return await self._senders.send(delivery.webhook, delivery.id, now_s, body)

    async def _settle(self, delivery: Delivery, sent: Sent) -> None:
        if sent.why is None:
            await self._deliveries.settle(delivery, None, None)
            return
        is_last = sent.is_final or delivery.attempt + 1 >= ATTEMPTS_MAX
        pause_us = round(pause_s(delivery.attempt, sent.retry_after_s, self._random) * SECOND_US)
        await self._deliveries.settle(delivery, sent.why, None if is_last else self._clock.now_us() + pause_us)

    async def _told(self, delivery: Delivery) -> bytes | None:
        """Return what is sent; None: its run or schedule was deleted meanwhile."""
        if delivery.schedule:
            return await self._paused(delivery)
        run = await self._store.run(delivery.run_id)
        events = await self._store.journal(delivery.run_id, delivery.position, 1)
        if run is None or not events:
            return None
        webhook = self._webhooks[delivery.webhook]
        told = {**_facts(run, events[0]), "look": _look(webhook.address, run.run_id, events[0])}
        if webhook.arguments:
            told |= await self._contents(run, events[0])
        return _encoded(delivery.topic, events[0].at_us, told)

    async def _paused(self, delivery: Delivery) -> bytes | None:
        """Return what is sent of a schedule that paused itself. Why it did may quote a program."""
        for each in await self._schedules.schedules(delivery.schedule):
            webhook = self._webhooks[delivery.webhook]
            told: dict[str, Value] = {
                "event": "paused", "schedule": each.id, "schedule_name": each.name, "agent": each.agent, "failures": each.failures,
                "last_run": each.last_run, "position": delivery.position,
                "look": f"{webhook.address.rstrip('/')}/v1/schedules/{each.id}" if webhook.address else f"overwinter schedule show {each.id}",
            }  # fmt: skip
            return _encoded(
                delivery.topic, delivery.position, told | ({"why": each.paused} if webhook.arguments else {})
            )
        return None

    async def _contents(self, run: RunRecord, event: Event) -> dict[str, Value]:
        """Return what a webhook is told only by `arguments = true`: what programs, services and people wrote."""
        body = event.body
        found: dict[str, Value] = {
            key: readable(body[key])
            for key in ("question", "reason", "message", "why")
            if event.kind != "gated" and key in body
        }
        if event.kind in ("gated", "asked", "unknown"):
            calls = await self._store.calls(run.run_id)
            call = next((each.call for each in calls if each.call.index == body["index"]), None)
            if call is not None:
                arguments = readable(dict(call.arguments))
                is_small = len(json.dumps(arguments)) <= ARGUMENTS_BYTES_MAX
                found |= {"arguments": arguments} if is_small else {"arguments": None, "is_cut": True}
        return {"text" if key == "question" else key: value for key, value in found.items()}


def _facts(run: RunRecord, event: Event) -> dict[str, Value]:
    """Return what is told of every fact: names, places and digests, nothing that a program, a service or a person wrote."""
    told: dict[str, Value] = {
        "event": event.kind, "run": run.run_id, "run_name": run.name, "agent": run.agent, "position": event.position,
    }  # fmt: skip
    body = event.body
    if "index" in body:
        told["question"] = f"{run.run_id}:{body['index']}"
    told |= {key: body[key] for key in ("function", "person", "digest", "by", "is_enough", "kind") if key in body}
    if event.kind == "gated":
        told |= {"reason": body["reason"], "policies": list(body["policies"])}
    return told


def _look(address: str, run_id: str, event: Event) -> str:
    is_asked = event.kind in ("gated", "asked", "unknown")
    if not address:
        return "overwinter inbox" if is_asked else f"overwinter show {run_id}"
    place = f"questions/{run_id}:{event.body['index']}" if is_asked else f"runs/{run_id}"
    return f"{address.rstrip('/')}/v1/{place}"


def _encoded(topic: str, at_us: int, told: Mapping[str, Any]) -> bytes:
    at = datetime.fromtimestamp(at_us / SECOND_US, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"type": topic, "timestamp": at, "data": told}).encode()
