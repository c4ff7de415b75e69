"""``docs/audit.md`` says what the code does: its table is the registry, its examples can be read."""

import re
import tomllib
from pathlib import Path

import pytest

from experiments import cli
from experiments.audit.config import Audit
from experiments.audit.diagnosis import DIAGNOSES

PAGE = (Path(__file__).parents[3] / "docs" / "audit.md").read_text()


def test_the_table_is_the_registry() -> None:
    rows = [f"| `{name}` | {d.mistake} | {d.figure} | {d.remedy} |" for name, d in DIAGNOSES.items()]
    assert re.findall(r"^\| `.*$", PAGE, re.MULTILINE) == rows


@pytest.mark.parametrize("text", re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
def test_examples_are_audits(text: str) -> None:
    Audit.model_validate(tomllib.loads(text))


def test_examples_of_python_compile() -> None:
    for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        compile(text, "docs/audit.md", "exec")


def test_commands_are_there() -> None:
    there = {one.name or getattr(one.callback, "__name__", "") for one in cli.app.registered_commands}
    assert set(re.findall(r"fl-sim ([a-z-]+)", PAGE)) <= there
