import pytest
from pydantic import ValidationError

from fl_sim.core.types import Outcome, Protocol


@pytest.mark.parametrize(
    ("images", "batch_size", "epochs", "steps"), [(1, 1, 1, 1), (8, 4, 1, 2), (9, 4, 1, 3), (3, 4, 5, 5), (9, 4, 2, 6)]
)
def test_a_round_of_fedavg_takes_a_step_a_batch_and_epoch(
    images: int, batch_size: int, epochs: int, steps: int
) -> None:
    protocol = Protocol(mode="fedavg", batch_size=batch_size, local_epochs=epochs)
    assert protocol.steps(images) == steps


def test_a_round_of_fedsgd_is_one_step() -> None:
    assert Protocol(mode="fedsgd", batch_size=4, local_epochs=3).steps(9) == 1


@pytest.mark.parametrize(
    "option", [{"learning_rate": 0}, {"momentum": -0.1}, {"batch_size": 0}, {"mode": "fedprox"}, {"batchnorm": "off"}]
)
def test_impossible_protocols_are_refused(option: dict[str, float | str]) -> None:
    with pytest.raises(ValidationError):
        Protocol(**option)  # type: ignore[arg-type]


def test_outcomes_are_written_as_they_are_named() -> None:
    assert [str(o) for o in Outcome] == ["converged", "out-of-steps", "out-of-time", "non-finite"]
