"""All trials through the network at once, and gradients told apart layer by layer."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from attacks.gradients.factors import Tree
from attacks.gradients.layers import Tape, lowered
from attacks.gradients.passes import Guess
from fl_sim.core.stochastic import charged
from fl_sim.training.local import State


class Batched:
    """The trials' batches as one: one forward pass, one backward pass to the layers' outputs, one product a layer.

    Per-example gradients by layer inputs and outputs are Goodfellow's (arXiv 1510.01799); here trials are told apart,
    and all of it is differentiable again. Use :meth:`of`.
    """

    def __init__(self, network: nn.Module, order: list[str], tape: Tape) -> None:
        self._network, self._order, self._tape = network, order, tape

    @classmethod
    def of(cls, model: nn.Module, state: State) -> "Batched | None":
        """``model`` at ``state``, or ``None`` where a parameter belongs to a layer that is not known here.

        Trials must not meet in the forward pass; a trial's examples may, in batch norm in train mode.
        """
        network, tape = deepcopy(model), Tape()
        with torch.no_grad():
            for name, value in [*network.named_parameters(), *network.named_buffers()]:
                value.copy_({**state.weights, **state.buffers}.get(name, value))
        for name, layer in list(network.named_modules()):
            if (known := lowered(layer, name, tape)) is not None:
                _replace(network, name, known)
            elif hasattr(layer, "inplace"):
                layer.inplace = False  # outputs are needed as they were
        alone = any(True for _ in network.parameters())
        return None if alone else cls(network, list(state.weights), tape)

    def __call__(self, guess: Guess) -> Tree:
        trials, each = guess.images.shape[:2]
        self._tape.clear()
        self._tape.trials = trials
        noise = {name: z.flatten(0, 1) for name, z in guess.noise.items()}
        images = guess.images.flatten(0, 1)
        differentiable = any(t.requires_grad for t in (images, guess.labels, *noise.values()))
        images = images if images.requires_grad else images.detach().requires_grad_()
        with charged(self._network) as prices:
            logits: Tensor = functional_call(self._network, noise, (images,))
        entropy = cross_entropy(logits, guess.labels.flatten(0, 1), reduction="sum")
        loss = sum((price.sum() for price in prices), entropy) / each
        outs = [run.out for run in self._tape]
        backs = torch.autograd.grad(loss, outs, create_graph=differentiable)
        with torch.set_grad_enabled(differentiable):
            told = {
                name: gradient
                for run, back in zip(self._tape, backs, strict=True)
                for name, gradient in run.tell(back, trials)
            }
        self._tape.clear()
        return {name: told[name] for name in self._order}


def _replace(network: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, layer)
