"""``fl-sim`` in this process, as a shell would call it."""

import sys

import pytest

from experiments import cli


def fl_sim(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Its exit code. ``main`` itself may end the process at once, and the tests with it."""
    monkeypatch.setattr(sys, "argv", ["fl-sim", *arguments])
    return cli.outcome()
