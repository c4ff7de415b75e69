"""The attacks that are compared, each as one function of what the server sees."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType, SimpleNamespace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from attacks import ATTACKS
from attacks.posterior import PosteriorSearch
from benchmarks.film import Camera, Film
from fl_sim.core.seeds import derive, derive_int
from fl_sim.core.types import Budget, Observation, Outcome, Reconstruction

Options: TypeAlias = Mapping[str, Any]


def ours(seen: Observation, model: nn.Module, options: Options, camera: Camera, seed: int) -> Reconstruction:
    """``inverting_gradients`` with ``options``, filmed."""
    attack = ATTACKS["inverting_gradients"](**options)
    assert isinstance(attack, PosteriorSearch)
    return replace(attack, variables=Film(attack.variables, camera))(seen, model, derive(seed, "attack"))


def breaching(
    seen: Observation, model: nn.Module, options: Options, camera: Camera | None, seed: int, device: str = "cpu"
) -> Reconstruction:
    """breaching's ``invertinggradients``, as shipped but for ``options["steps"]``, filmed if there is a camera.

    Its network takes normalised images, so it gets ours without the first layer, with the same weights and statistics.
    It infers the label by its own default strategy. The camera is one more regulariser, of no weight.
    """
    from breaching import get_attack_config
    from breaching.attacks import prepare_attack

    began = time.monotonic()
    config = get_attack_config("invertinggradients", [f"optim.max_iterations={options['steps']}"])
    setup = {"dtype": torch.float, "device": torch.device(device)}
    attacker = prepare_attack(model.get_submodule("net").eval(), nn.CrossEntropyLoss(), config, setup)
    if camera is not None:
        attacker.regularizers.append(_Watching(camera, seen))
    with torch.random.fork_rng():
        torch.manual_seed(derive_int(seed, "attack"))
        found, stats = attacker.reconstruct(*_payloads(seen, model, device), server_secrets={})
    return Reconstruction(
        images=_to_unit(found["data"].cpu(), seen).clamp(0, 1),
        labels=found["labels"].cpu(),
        outcome=Outcome.OUT_OF_STEPS,
        loss=float(stats["opt_value"]),
        budget=Budget(iterations=len(stats["Trial_0_Val"]), seconds=time.monotonic() - began, device=device),
    )


def _payloads(seen: Observation, model: nn.Module, device: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What breaching's server sent and what its user shares, in the order of the network's parameters."""
    task = seen.task
    about = SimpleNamespace(shape=task.image_shape, mean=task.mean, std=task.std, modality="vision")
    network = model.get_submodule("net")
    sent = {"parameters": list(network.parameters()), "buffers": list(network.buffers()), "metadata": about}
    shared = {
        "gradients": [seen.update.delta[name].clone().to(device) for name in seen.broadcast],
        "buffers": None,
        "metadata": {"num_data_points": 1, "labels": None, "local_hyperparams": None},
    }
    return [sent], [shared]


def _to_unit(images: Tensor, seen: Observation) -> Tensor:
    mean, std = (torch.tensor(v, device=images.device).view(-1, 1, 1) for v in (seen.task.mean, seen.task.std))
    return images * std + mean


class _Watching:
    """A regulariser in breaching's sense that only shows each candidate to a camera."""

    def __init__(self, camera: Camera, seen: Observation) -> None:
        self._camera, self._seen = camera, seen

    def initialize(self, *_: object) -> None:
        self._camera.start()

    def __call__(self, candidate: Tensor) -> float:
        self._camera.show(_to_unit(candidate.detach(), self._seen))
        return 0.0


TOOLS: Mapping[str, Callable[[Observation, nn.Module, Options, Camera, int], Reconstruction]] = MappingProxyType(
    {"fl-sim": ours, "breaching": breaching}
)
