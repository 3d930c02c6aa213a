"""A model that is none: it says what is written down here, over the wire of Anthropic's Messages, and its answers say that it is scripted.

    python scripted_model.py [--port N]        # prints {"url": ...}

It writes the program that collects an invoice, gets one parameter's name wrong at first, and mends it when it is told. If the goal speaks
of the CRM, it looks up first what there is for that.
"""

import argparse
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LABEL = "scripted"
COLLECTS = (Path(__file__).parent / "charge_overdue.py").read_text(encoding="utf-8")
INPUTS = "invoice_id, limit_cents, owner, pause_s = {invoice}, 380_000, 'owner@example.com', 1.0\n"


LOOK = """print("\\n".join(await tools.search(["collect an invoice", "charge a card", "write down a CRM activity"], limit=3)))\n"""
NOTE = """\
await erp.crm_activities_create(reference=f"invoice {invoice_id}", text="collection has begun", state="open")
"""


def said(messages: list[dict[str, Any]]) -> str:
    """Return what the script says to a conversation."""
    first, told = _text(messages[0]), _text(messages[-1])
    invoice = next((found[1] for each in messages if (found := re.search(r"invoice (\d+)", _text(each)))), "1")
    note = NOTE if "CRM" in first else ""
    program = INPUTS.format(invoice=invoice) + note + COLLECTS.partition('"""\n\n')[2]
    if "the program was refused" in told:
        return f"The parameter is called invoice_id.\n```python\n{program}```"
    if note and len(messages) == 1:
        return f"I look up what there is.\n```python\n{LOOK}```"
    if len(messages) <= (3 if note else 1):
        wrong = program.replace("billing.charge(invoice_id=invoice_id", "billing.charge(invoice=invoice_id")
        return f"I sleep until it is due, ask above the limit, and charge.\n```python\n{wrong}```"
    return "It is collected."


def _text(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


class Model(BaseHTTPRequestHandler):
    """Answers requests."""

    def do_POST(self) -> None:
        """Answer one."""
        raw = self.rfile.read(int(self.headers["content-length"]))
        asked = json.loads(raw)
        text = said(asked["messages"])
        usage = {"input_tokens": len(raw) // 4, "output_tokens": len(text) // 4}
        answer = {
            "id": f"msg_{LABEL}", "type": "message", "role": "assistant", "model": asked["model"], "stop_reason": "end_turn",
            "stop_sequence": None, "content": [{"type": "text", "text": text}], "usage": usage,
        }  # fmt: skip
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    server = ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Model)
    print(json.dumps({"url": f"http://127.0.0.1:{server.server_address[1]}"}), flush=True)
    server.serve_forever()
