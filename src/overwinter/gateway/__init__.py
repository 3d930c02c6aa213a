"""The one layer that every model call passes: policy, redaction, cache, budget, upstream, ledger."""
