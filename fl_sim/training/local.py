"""What a client computes. Torch only and differentiable in the images: the protocol is public, attacks use it too."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy, pad

from fl_sim.core.stochastic import charged, draw_noise
from fl_sim.core.trees import map_tree, scale, subtract
from fl_sim.core.types import Batch, Protocol, Tensors, Update


class State(NamedTuple):
    """Weights and batch-norm statistics, each by name."""

    weights: Tensors
    buffers: Tensors


class Gradient(NamedTuple):
    """Mean gradient of a batch, its mean loss (a scalar), and the buffers after the forward pass."""

    tree: Tensors
    loss: Tensor
    buffers: Tensors


@contextmanager
def single_threaded() -> Iterator[None]:
    """One torch thread inside: sums of floats depend on their number, and workers would fight for cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


GradientRule: TypeAlias = Callable[[nn.Module, State, Batch], Gradient]


def state_of(model: nn.Module) -> State:
    """The model's own weights and floating-point buffers, as detached copies; BatchNorm's counters stay behind."""
    kept = {name for name in model.state_dict() if name not in dict(model.named_parameters())}
    buffers = {name: b.clone() for name, b in model.named_buffers() if name in kept and b.is_floating_point()}
    return State({name: p.detach().clone() for name, p in model.named_parameters()}, buffers)


def logits_of(model: nn.Module, state: State, images: Tensor) -> tuple[Tensor, Tensors]:
    """Logits ``(N, K)`` at ``state`` and the buffers afterwards; neither ``model`` nor ``state`` is written to."""
    buffers = {name: b.clone() for name, b in model.named_buffers()} | {k: b.clone() for k, b in state.buffers.items()}
    logits: Tensor = functional_call(model, {**state.weights, **buffers}, (images,))
    return logits, {name: buffers[name] for name in state.buffers}


def loss_of(model: nn.Module, state: State, batch: Batch) -> tuple[Tensor, Tensors]:
    """Mean loss at ``state`` and the buffers afterwards; labels as a :class:`Batch` has them.

    Cross-entropy, and what the model's own modules charge (:class:`fl_sim.core.stochastic.Charged`).
    """
    with charged(model) as prices:
        logits, buffers = logits_of(model, state, batch.images)
    labels = batch.labels
    if labels.dim() == 2:
        labels = pad(labels, (0, logits.shape[1] - labels.shape[1]))
    return sum((price.mean() for price in prices), cross_entropy(logits, labels)), buffers


def gradient(model: nn.Module, state: State, batch: Batch, *, create_graph: bool = False) -> Gradient:
    """Gradient of the batch's mean loss in the weights; in ``model``'s own mode, train or eval.

    With ``create_graph`` it can be differentiated again, in the images, labels and weights. That of no image at all is
    zero, and its loss NaN.
    """
    if not len(batch.labels):
        return Gradient(map_tree(torch.zeros_like, state.weights), torch.tensor(math.nan), state.buffers)
    weights = {
        name: w if create_graph and w.requires_grad else w.detach().requires_grad_()
        for name, w in state.weights.items()
    }
    loss, buffers = loss_of(model, State(weights, state.buffers), batch)
    grads = torch.autograd.grad(loss, list(weights.values()), create_graph=create_graph)
    return Gradient(dict(zip(weights, grads, strict=True)), loss, buffers)


def example_gradients(model: nn.Module, state: State, batch: Batch) -> Tensors:
    """The gradient of each example alone, each tensor ``(N, *shape)``; batch norm must be in eval mode.

    Buffers of N rows in ``state`` that the model itself does not have so long are draws, one an example.
    """
    own = dict(model.named_buffers())
    noise = {name: b for name, b in state.buffers.items() if b.shape != own[name].shape}
    fixed = {name: b for name, b in state.buffers.items() if name not in noise}

    def loss(weights: Tensors, image: Tensor, label: Tensor, drawn: Tensors) -> Tensor:
        buffers = {**fixed, **{name: z[None] for name, z in drawn.items()}}
        return loss_of(model, State(weights, buffers), Batch(image[None], label[None]))[0]

    weights = {name: w.detach() for name, w in state.weights.items()}
    return dict(vmap(grad(loss), in_dims=(None, 0, 0, 0))(weights, batch.images, batch.labels, noise))


def local_update(
    model: nn.Module, start: State, batch: Batch, protocol: Protocol, order: Generator, rule: GradientRule = gradient
) -> tuple[Update, float]:
    """Run ``protocol`` from ``start`` on ``batch``.

    Args:
        order: Shuffles the images of each epoch (``fedavg``), and draws what a stochastic model draws.
        rule: Computes each batch's gradient; a defense may replace the plain one.

    Returns:
        The undefended update, and the loss of the first batch before any step; of the first that is not empty, where
        batches are Poisson samples, NaN where all are.
    """
    model.train(protocol.batchnorm == "train")
    if protocol.mode == "fedsgd":
        first = rule(model, _drawn(model, start, batch, order), batch)
        buffers = {name: first.buffers[name] for name in start.buffers}
        return _update(first.tree, buffers, batch, protocol), first.loss.item()
    state, velocity, losses = start, dict[str, Tensor](), list[float]()
    for part in minibatches(batch, protocol, order):
        step = _expected(rule(model, _drawn(model, state, part, order), part), len(part.labels), batch, protocol)
        velocity = {k: protocol.momentum * velocity[k] + g if velocity else g for k, g in step.tree.items()}
        moved = {k: w - protocol.learning_rate * velocity[k] for k, w in state.weights.items()}
        state = State(moved, {name: step.buffers[name] for name in start.buffers})
        losses.append(step.loss.item())
    first_loss = next((loss for loss in losses if not math.isnan(loss)), math.nan)
    return _update(subtract(state.weights, start.weights), state.buffers, batch, protocol), first_loss


def minibatches(batch: Batch, protocol: Protocol, order: Generator) -> Iterator[Batch]:
    """The round's batches: each epoch a new shuffle, the last batch of an epoch may be smaller; or Poisson samples."""
    if protocol.sampling == "poisson":
        count = len(batch.labels)
        for _ in range(protocol.steps(count)):
            chosen = (torch.rand(count, generator=order) < protocol.rate(count)).nonzero()[:, 0]
            yield Batch(batch.images[chosen], batch.labels[chosen])
        return
    for _ in range(protocol.local_epochs):
        shuffled = torch.randperm(len(batch.labels), generator=order)
        for chosen in torch.split(shuffled, protocol.batch_size):
            yield Batch(batch.images[chosen], batch.labels[chosen])


def evaluate(model: nn.Module, state: State, batch: Batch) -> tuple[float, float]:
    """Mean loss and accuracy on ``batch``, in eval mode."""
    model.eval()
    with torch.no_grad():
        logits = torch.cat(
            [functional_call(model, {**state.weights, **state.buffers}, (i,)) for i in torch.split(batch.images, 256)]
        )
    return cross_entropy(logits, batch.labels).item(), (logits.argmax(1) == batch.labels).float().mean().item()


def _expected(step: Gradient, drawn: int, batch: Batch, protocol: Protocol) -> Gradient:
    """A Poisson sample's mean gradient as its sum over the size expected; what an empty one gives counts as a sum."""
    if protocol.sampling == "shuffle":
        return step
    count = len(batch.labels)
    return step._replace(tree=scale(step.tree, max(drawn, 1) / (protocol.rate(count) * count)))


def _drawn(model: nn.Module, state: State, batch: Batch, rng: Generator) -> State:
    """``state`` with what a stochastic model draws for ``batch`` among its buffers."""
    return state._replace(buffers={**state.buffers, **draw_noise(model, len(batch.labels), rng)})


def _update(delta: Tensors, buffers: Tensors, batch: Batch, protocol: Protocol) -> Update:
    kept = buffers if protocol.batchnorm == "train" else {}
    kind = "gradient" if protocol.mode == "fedsgd" else "delta"
    return Update(delta=delta, num_examples=len(batch.labels), kind=kind, buffers=kept)  # type: ignore[arg-type]
