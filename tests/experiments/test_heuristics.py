"""The seed paper's heuristic defenses, naive and adaptive attack on the same observations (arXiv 2111.04706, figure 2).

On CIFAR-10 where ``FL_SIM_DATA`` is set, else on the bundled digits.
"""

import os
from collections.abc import Mapping
from typing import Any

import pytest
from torch import nn

from attacks import ATTACKS
from attacks.likelihoods import Cosine, Layers
from experiments.build import Cell, cells
from experiments.checks.world import cost_at
from experiments.config import load_dict
from experiments.knowledge import truth
from fl_sim.core.knowledge import Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat
from fl_sim.core.types import Batch, Observation
from fl_sim.federation.client import train_once
from fl_sim.metrics.image import psnr, ssim
from fl_sim.training.local import gradient, state_of

DATA = os.environ.get("FL_SIM_DATA")
IMAGES = 3
SHORT = {"steps": 120, "signed": False, "step_size": 0.8}
LAYER = "net.head.weight"

Seen = list[tuple[Observation, Batch]]


def cell_of(model: Mapping[str, Any], *defenses: Mapping[str, Any]) -> Cell:
    federation, data = {"clients": IMAGES, "rounds": 1}, {"name": "cifar10" if DATA else "digits", "per_client": 1}
    study = {"name": "x", "model": model, "defenses": list(defenses), "federation": federation, "data": data}
    return cells(load_dict(study, "test"))[0]


def seen(cell: Cell) -> Seen:
    """What the server has of each client in round 1, labels granted; and the truth."""
    job, task = cell.job(DATA), cell.data(DATA).task()
    state, found = state_of(job.model()), []
    for client in range(IMAGES):
        real = truth(job, (client,), 1)
        one = Observation(
            round=1,
            client=client,
            members=(client,),
            task=task,
            broadcast=state.weights,
            buffers=state.buffers,
            update=train_once(job, state, client, 1)[0],
            protocol=job.protocol,
            knowledge=Knowledge(labels=real.labels),
        )
        found.append((one, real))
    return found


def scores(name: str, observed: Seen, model: nn.Module, **options: Any) -> tuple[list[float], list[float]]:
    """PSNR and SSIM of each image."""
    rngs = [derive(0, "attack", client) for client in range(IMAGES)]
    guesses = ATTACKS[name](**options).batched([one for one, _ in observed], model, rngs)
    pairs = [(guess.images, real.images) for guess, (_, real) in zip(guesses, observed, strict=True)]
    return [psnr(*pair).item() for pair in pairs], [ssim(*pair).item() for pair in pairs]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_the_ratio_is_exact_behind_precode() -> None:
    cell = cell_of({"name": "mlp", "widths": [256, 256]}, {"name": "precode"})
    assert min(scores("ratio", seen(cell), cell.job(DATA).model())[0]) > 60


@pytest.mark.slow
def test_precode_stops_matching_behind_two_layers() -> None:
    """Behind one it does not: that layer's gradient is nearly all of it, and has the image as a factor."""
    cell = cell_of({"name": "mlp", "widths": [256, 256]}, {"name": "precode"})
    psnrs, ssims = scores("inverting_gradients", seen(cell), cell.job(DATA).model(), steps=150)
    assert mean(ssims) < 0.4
    assert mean(psnrs) < 16


@pytest.mark.parametrize("layer", ["net.head", "net.fc2"])
def test_soteria_bounds_the_naive_cosine_at_the_truth_and_not_the_adaptive_one(layer: str) -> None:
    """K9 on real images: ``1 - |m g| / |g|``, and 0 without the layer."""
    cell = cell_of({"name": "mlp", "widths": [48, 32]}, {"name": "soteria", "rate": 0.8, "layer": layer})
    model = cell.job(DATA).model().eval()
    for one, real in seen(cell):
        clean = flat(gradient(model, state_of(model), real).tree)
        lost = 1 - (flat(one.update.delta).norm() / clean.norm()).item()
        assert lost > 1e-3
        assert cost_at(real, Cosine(), one, model) == pytest.approx(lost, abs=1e-5)
        adaptive = Cosine(layers=Layers(dropped=(f"{layer}.weight",)))
        assert cost_at(real, adaptive, one, model) == pytest.approx(0, abs=1e-5)


@pytest.mark.slow
def test_dropping_soterias_layer_gains_five_decibels_before_training() -> None:
    cell = cell_of({"name": "cnn"}, {"name": "soteria", "rate": 0.8})
    observed, model = seen(cell), cell.job(DATA).model()
    naive = scores("inverting_gradients", observed, model, **SHORT)[0]
    adaptive = scores("inverting_gradients", observed, model, dropped=(LAYER,), **SHORT)[0]
    assert mean(adaptive) > mean(naive) + 5
    assert min(a - n for a, n in zip(adaptive, naive, strict=True)) > 3


@pytest.mark.slow
def test_ignoring_what_is_stochastic_undoes_precode_behind_convolutions() -> None:
    """The recipe of arXiv 2208.04767: what comes after the features is not matched."""
    cell = cell_of({"name": "cnn"}, {"name": "precode"})
    observed, model = seen(cell), cell.job(DATA).model()
    after = tuple(name for name, _ in model.named_parameters() if "bottleneck" in name or "head" in name)
    naive = scores("inverting_gradients", observed, model, **SHORT)[0]
    adaptive = scores("inverting_gradients", observed, model, dropped=after, **SHORT)[0]
    assert mean(adaptive) > mean(naive) + 5
