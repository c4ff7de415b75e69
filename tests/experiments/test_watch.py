from io import StringIO

from rich.console import Console

from experiments.build import cells
from experiments.config import load_dict
from experiments.watch import Bars


def test_a_log_says_how_much_is_left() -> None:
    now, text = [0.0], StringIO()
    cell = cells(load_dict({"name": "t"}, "t"))[0]
    with Bars(Console(file=text, width=200, get_time=lambda: now[0]), rounds=4, attacks=100, judgements=100) as watch:
        for done in range(1, 11):
            now[0] = 30.0 * done
            watch.attack(cell, "dlg", "converged")
    last = text.getvalue().splitlines()[-1]
    assert last.startswith("train 0/4, attack 10/100, evaluate 0/100, about 45 min left  dlg: converged")


def test_nothing_is_said_of_what_has_not_begun() -> None:
    now, text = [0.0], StringIO()
    cell = cells(load_dict({"name": "t"}, "t"))[0]
    with Bars(Console(file=text, width=200, get_time=lambda: now[0]), rounds=4, attacks=0, judgements=0) as watch:
        now[0] = 30.0
        watch.round(cell, 0, 0.1)
    assert "left" not in text.getvalue()
