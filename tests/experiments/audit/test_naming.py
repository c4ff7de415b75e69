"""Other tools' names for the same weights."""

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import nn

from experiments.audit.naming import Naming
from fl_sim import models
from fl_sim.core.errors import ConfigError
from fl_sim.core.types import Tensors
from tests.experiments.audit.record import COLOUR

RESNET = models.build("resnet18", COLOUR, 0, width=8)
SMALL = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def named(
    model: nn.Module,
    arrays: Tensors,
    names: Mapping[str, str] | Sequence[str] = (),
    transpose: Sequence[str] = (),
) -> Tensors:
    found = Naming(model, names or {}, transpose)(dict(arrays), "file")
    return {**found.state.weights, **found.state.buffers}


def test_lists_are_in_the_order_of_the_state_dict_or_of_the_parameters() -> None:
    whole = RESNET.state_dict()
    weights = dict(RESNET.named_parameters())
    for source in (whole, weights):
        found = named(RESNET, {str(i): t for i, t in enumerate(source.values())})
        assert all(torch.equal(found[name], weights[name]) for name in weights)
        assert ("net.bn1.running_mean" in found) == (source is whole)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "trainer.model."])
def test_what_a_wrapper_puts_before_names_is_dropped(prefix: str) -> None:
    state = SMALL.state_dict()
    found = named(SMALL, {f"{prefix}{name}": t for name, t in state.items()})
    assert all(torch.equal(found[name], t) for name, t in state.items())


def test_names_may_be_mapped_and_matrices_turned() -> None:
    state = SMALL.state_dict()
    theirs = {"dense/kernel": state["0.weight"].T, "dense/bias": state["0.bias"]}
    theirs |= {"out/kernel": state["2.weight"].T, "out/bias": state["2.bias"]}
    found = named(SMALL, theirs, dict(zip(theirs, state, strict=True)), ["0.weight", "2.weight"])
    assert all(torch.equal(found[name], t) for name, t in state.items())
    found = named(SMALL, {str(i): t for i, t in enumerate(state.values())}, list(state))
    assert all(torch.equal(found[name], t) for name, t in state.items())


def test_the_counter_of_batches_is_kept_apart() -> None:
    assert Naming(RESNET, {}, ())(dict(RESNET.state_dict()), "file").counter == 0
    assert Naming(SMALL, {}, ())(dict(SMALL.state_dict()), "file").counter is None


STATE = {name: t.detach() for name, t in SMALL.state_dict().items()}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({k: t for k, t in STATE.items() if k != "2.bias"}, "expected the weights .'2.bias'. too, got no other"),
        ({("b" if k == "2.bias" else k): t for k, t in STATE.items()}, "2.bias may be recorded as .'b'.: set names"),
        (STATE | {"3.weight": torch.ones(2)}, "got .'3.weight'. as well: is it this model"),
        (STATE | {"0.weight": STATE["0.weight"].T}, "set transpose = ..0.weight"),
        (STATE | {"0.weight": torch.ones(5, 5)}, "got .5, 5.: is it this model"),
        (STATE | {"0.bias": torch.full((3,), torch.nan)}, "finite numbers in 0.bias"),
        ({str(i): torch.ones(1) for i in range(3)}, "a list of 4 or 4 arrays, got 3"),
    ],
)
def test_what_does_not_fit_is_named_with_what_to_do(arrays: Tensors, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        named(SMALL, arrays)


@pytest.mark.parametrize(
    ("names", "transpose", "message"),
    [
        ({"x": "0.weight"}, [], "expected recorded names, got .'x'."),
        (["0.weight"], [], "expected 4 of them"),
        ({}, ["fc.weight"], "transpose: expected the model's names, got .'fc.weight'."),
    ],
)
def test_wrong_maps_are_refused(names: Mapping[str, str] | list[str], transpose: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        named(SMALL, STATE, names, transpose)
