"""The tools of the example: a billing service over HTTP, and an invoice database."""
