"""Checks programs with the type checker that Monty brings, in a worker that holds nothing to call."""

from overwinter.adapters.monty_checker.checker import MontyChecker, open_checker

__all__ = ["MontyChecker", "open_checker"]
