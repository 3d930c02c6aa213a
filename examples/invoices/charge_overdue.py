"""Collect one invoice: sleep until it is due, ask above a limit, charge, and try a declined card again for days.

Inputs: invoice_id, limit_cents, owner, pause_s (between attempts; three days in earnest).
"""

import asyncio
import time

invoice = await invoices.get(id=invoice_id)
await asyncio.sleep(invoice["due_at"] - time.time())

if invoice["amount_cents"] > limit_cents:
    question = f"Collect {invoice['amount_cents'] / 100:.2f} EUR from {invoice['customer']}?"
    if await tools.ask(owner, question, options=["yes", "no"]) == "no":
        await invoices.close(id=invoice_id, state="waived")
        raise SystemExit("waived by the owner")

state = "declined"
for attempt in range(3):
    try:
        if invoice["by_transfer"]:
            receipt = await billing.transfer(invoice_id=invoice_id, amount_cents=invoice["amount_cents"])
        else:
            receipt = await billing.charge(invoice_id=invoice_id, amount_cents=invoice["amount_cents"])
        state = "paid"
        break
    except (RuntimeError, OSError) as error:
        detail = await tools.error(error)
        print("attempt", attempt + 1, "failed:", detail["code"])
        await asyncio.sleep(pause_s)

await invoices.close(id=invoice_id, state=state)
{"invoice": invoice_id, "state": state}
