"""overwinter: durable, type-checked Python programs that sleep for nothing and survive `kill -9`."""

__version__ = "0.1.0"
