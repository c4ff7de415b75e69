"""What cannot go together is refused with the reason, before anything is run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.check import check, load
from fl_sim.core.errors import ConfigError
from fl_sim.federation.central import CENTRAL

Write = Callable[[str], Path]
SMALL = 'name = "t"\nmodel = {name = "mlp", widths = [8]}\nattack = "ratio"\n'
PRIVATE = [f"federation.strategy={CENTRAL}", "federation.strategy_options={noise_multiplier=1.0, clipping_norm=0.5}"]
LOCAL = ["federation.mode=fedavg", "federation.batch_size=4", "data.per_client=8"]
POISSON = "federation.sampling=poisson"


def problems(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check(load(path, overrides))
    return "\n".join(caught.value.problems)


def test_central_privacy_is_of_equal_clients_whose_updates_are_seen(study_file: Write) -> None:
    path = study_file(SMALL)
    (cell,) = check(load(path, PRIVATE))
    found = cell.guarantee(None)
    assert found is not None
    assert (found.multiplier, found.against) == (0.5, "model")
    uneven = [*PRIVATE, "federation.mode=fedavg", "data.partition={kind='dirichlet', alpha=0.1}", "attack=[]"]
    assert "clients of one size" in problems(path, *uneven)
    assert "which it must see" in problems(path, *PRIVATE, "adversary.view=aggregate")
    convnet = "model={name='convnet', width=2}"
    assert "without batch norm" in problems(path, *PRIVATE, convnet, "data.image_size=32", "attack=[]")


def test_defenses_that_hold_against_the_server_count_first(study_file: Write) -> None:
    local = "defenses=[{name='clip', norm=1.0}, {name='gaussian', std=1.0}]"
    (cell,) = check(load(study_file(SMALL), [*PRIVATE, local]))
    found = cell.guarantee(None)
    assert found is not None
    assert found.against == "server"


def test_poisson_samples_need_local_steps_and_gradients_of_examples(study_file: Write) -> None:
    path, dpsgd = study_file(SMALL), "defenses={name='dpsgd', clip=1.0, noise_multiplier=1.1}"
    (cell,) = check(load(path, [*LOCAL, POISSON, dpsgd]))
    found = cell.guarantee(None)
    assert found is not None
    assert (found.protects, found.rate, found.steps) == ("record", 0.5, 2)
    assert "hidden from the server" in problems(path, POISSON, dpsgd)
    assert "no statistics" in problems(path, *LOCAL, POISSON, "federation.batchnorm=train")
    assert "Soteria" in problems(path, *LOCAL, POISSON, "defenses=soteria")


def test_what_makes_no_sense_together_is_said(study_file: Write) -> None:
    path = study_file(SMALL)
    assert "every zero as a positive" in problems(path, "defenses=[{name='topk', keep=0.1}, 'signsgd']")
    noised = "defenses=[{name='clip', norm=1.0}, {name='gaussian', std=1.0}]"
    assert "promise nothing" in problems(path, noised, "federation.batchnorm=train")
    mixed = ["defenses=mixup", "federation.batch_size=2", "adversary.labels=true"]
    assert "blends have no class" in problems(path, *mixed)
    keyed = "federation.strategy_options={noise_multiplier=1.0, clipping_norm=0.5, weighted_by_key='loss'}"
    assert "which they choose" in problems(path, PRIVATE[0], keyed)


def test_mixing_needs_images_to_mix(study_file: Write) -> None:
    path = study_file(SMALL)
    assert "expected 4 images or more to mix in a client's round, got 1" in problems(path, "defenses=instahide")
    assert "expected 2 images" in problems(path, "defenses=mixup")
    assert check(load(path, ["defenses=mixup", "federation.batch_size=2", "attack=[]"]))
