import inspect

import pytest

from fl_sim.core import errors
from fl_sim.core.errors import ConfigError, FlSimError, suggestion


def test_a_near_name_is_suggested() -> None:
    assert suggestion("baies", ["ratio", "bayes"]) == "; did you mean 'bayes'?"


def test_nothing_is_suggested_when_nothing_is_near() -> None:
    assert suggestion("zzz", ["ratio", "bayes"]) == ""
    assert suggestion("bayes", []) == ""


@pytest.mark.parametrize(("given", "held"), [("one", ("one",)), (["one", "two"], ("one", "two"))])
def test_a_config_error_holds_every_problem(given: str | list[str], held: tuple[str, ...]) -> None:
    error = ConfigError(given)
    assert error.problems == held
    assert str(error) == "\n".join(held)


def test_every_error_is_ours_and_in_the_drawn_tree() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]
    assert len(classes) == 7
    assert all(issubclass(c, FlSimError) and c.__name__ in (errors.__doc__ or "") for c in classes)
