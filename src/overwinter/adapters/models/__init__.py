"""Models of providers: what they cost, what was spent, what is kept of their answers, and the way to them."""

from overwinter.adapters.models.file import ModelsFile, open_models_file
from overwinter.adapters.models.prices import TablePrices
from overwinter.adapters.models.upstream import HttpUpstream

__all__ = ["HttpUpstream", "ModelsFile", "TablePrices", "open_models_file"]
