"""What an attack solves: one observation, read as a target gradient and a model to take gradients of."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Generator, Tensor, nn

from attacks.gradients import Guess, Passes, dense, fastest
from attacks.labels import infer_labels
from fl_sim.core.trees import map_tree, scale
from fl_sim.core.types import Observation, Tensors
from fl_sim.training.local import State

__all__ = ["Guess", "Modelled", "Problem", "alike", "at_broadcast", "gradient_scale"]

Modelled: TypeAlias = Callable[[nn.Module, Observation], Passes]
"""How the gradient of a guess is computed: what an adversary makes of the client's local steps (attacks.local)."""


def at_broadcast(model: nn.Module, seen: Observation) -> Passes:
    """In one step from the weights that were sent."""
    return fastest(model, State(seen.broadcast, seen.buffers), seen.task)


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """An observation on one device, with everything an objective needs. Gradients have a trial dimension too."""

    seen: Observation
    model: nn.Module
    labels: Tensor  # (N,) int64, given or inferred; (T, N) of joined problems
    targets: Tensors  # the observed mean gradient, (1, *shape), only its direction where ``scale_known`` is false
    scale_known: bool
    device: str
    modelled: Modelled = at_broadcast
    sharing: "Problem | None" = None  # another one of the same network and weights
    earlier: "tuple[Problem, ...]" = ()  # of the same images, in other rounds

    @classmethod
    def of(
        cls, seen: Observation, model: nn.Module, rng: Generator, device: str, modelled: Modelled = at_broadcast
    ) -> "Problem":
        """Read an observation; infers the labels that are not granted.

        Tensors are copied to ``device``, also where they are there already: how they lie in memory decides the last bit
        of sums, and they come from files, from messages and from Ray's object store.
        """
        here = _moved(seen, device)
        model = deepcopy(model).to(device)  # its mode and device change; the caller's do not
        model.train(seen.protocol is not None and seen.protocol.batchnorm == "train")
        per_gradient = gradient_scale(here)
        target = scale(here.update.delta, 1 / (per_gradient or -1.0))
        labels = here.knowledge.labels
        if labels is None:
            labels = infer_labels(here, model, target, rng)
        those = [replace(one, knowledge=replace(one.knowledge, labels=labels.cpu())) for one in seen.earlier]
        return cls(
            seen=here,
            model=model,
            labels=labels.to(device),
            targets={name: t[None] for name, t in target.items()},
            scale_known=per_gradient is not None,
            device=device,
            modelled=modelled,
            earlier=tuple(cls.of(one, model, rng, device, modelled) for one in those),
        )

    @classmethod
    def joined(cls, problems: "Sequence[Problem]", trials: int) -> "Problem":
        """Problems of one network, each with its own target and labels for its ``trials``; ``seen`` is the first's."""
        first = problems[0]
        if len(problems) == 1:
            return first
        labels = torch.stack([p.labels for p in problems]).repeat_interleave(trials, 0)
        joint = {name: torch.cat([p.targets[name] for p in problems]) for name in first.targets}
        targets = {name: t.repeat_interleave(trials, 0) if trials > 1 else t for name, t in joint.items()}
        return first.shared(replace(first, labels=labels, targets=targets))

    def shared(self, other: "Problem") -> "Problem":
        """``other`` with the weights, the network and the passes of this one, which are equal."""
        seen = replace(other.seen, broadcast=self.seen.broadcast, buffers=self.seen.buffers)
        earlier = tuple(mine.shared(its) for mine, its in zip(self.earlier, other.earlier, strict=True))
        return replace(other, seen=seen, model=self.model, sharing=self, earlier=earlier)

    @cached_property
    def passes(self) -> Passes:
        """How gradients are computed."""
        if self.sharing is not None:
            return self.sharing.passes
        return self.modelled(self.model, self.seen)

    @property
    def target(self) -> Tensors:
        """The observed mean gradient, each ``(*shape)``; of one observation."""
        return {name: t.squeeze(0) for name, t in self.targets.items()}

    def gradients(self, guess: Guess) -> Tensors:
        """Mean gradient of each trial's batch, ``(T, *shape)``, differentiable in the guess."""
        return dense(self.passes(guess))

    def example_gradients(self, guess: Guess) -> Tensors:
        """The gradient of each image alone, ``(T, N, *shape)``, differentiable in the guess."""
        sizes = guess.images.shape[:2]
        return {name: g.view(*sizes, *g.shape[1:]) for name, g in dense(self.passes(guess.examples())).items()}

    def as_update(self, gradients: Tensors) -> Tensors:
        """Gradients in the units of the update that is sent; exact for one step, else the one-step approximation."""
        factor = gradient_scale(self.seen)
        return gradients if factor in {None, 1.0} else scale(gradients, factor)

    @cached_property
    def mean(self) -> Tensor:
        """Per channel, ``(C, 1, 1)``; see :class:`fl_sim.core.types.Task`."""
        return torch.tensor(self.seen.task.mean, device=self.device).view(-1, 1, 1)

    @cached_property
    def std(self) -> Tensor:
        return torch.tensor(self.seen.task.std, device=self.device).view(-1, 1, 1)


def _moved(seen: Observation, device: str) -> Observation:
    def moved(tree: Tensors) -> Tensors:
        return map_tree(lambda t: t.to(device).clone(), tree)

    return replace(
        seen,
        broadcast=moved(seen.broadcast),
        buffers=moved(seen.buffers),
        update=replace(seen.update, delta=moved(seen.update.delta), buffers=moved(seen.update.buffers)),
        knowledge=replace(seen.knowledge, randomness=moved(seen.knowledge.randomness)),
    )


def alike(seen: Sequence[Observation]) -> bool:
    """Whether all are of one network with the same weights, and of batches of one size; in earlier rounds too."""
    first = seen[0]

    def same(a: Tensors, b: Tensors) -> bool:
        return a is b or (a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a))

    return all(
        one.update.num_examples == first.update.num_examples
        and (one.task, one.protocol, one.knowledge.labels is None)
        == (first.task, first.protocol, first.knowledge.labels is None)
        and same(one.broadcast, first.broadcast)
        and same(one.buffers, first.buffers)
        and len(one.earlier) == len(first.earlier)
        for one in seen[1:]
    ) and all(alike(those) for those in zip(*(one.earlier for one in seen), strict=True))


def gradient_scale(seen: Observation) -> float | None:
    """What the mean gradient is multiplied by to make the update; ``None`` where the protocol is not disclosed.

    1 for a gradient. For a weight change, ``-learning_rate * steps`` with momentum's growth: the change that SGD would
    make if its gradient stayed what it was at the first step (the one-step approximation of FedAvg). Of Poisson samples
    it is so on average: which images were drawn is not known.
    """
    if seen.update.kind == "gradient":
        return 1.0
    if seen.protocol is None:
        return None
    moved, velocity = 0.0, 0.0
    each = -(-seen.update.num_examples // len(seen.members))  # examples of a member; they are not told apart
    for _ in range(seen.protocol.steps(each)):
        velocity = seen.protocol.momentum * velocity + 1
        moved += velocity
    return -seen.protocol.learning_rate * moved
