"""Which labels an update betrays.

The bias gradient of the last layer under cross-entropy is ``mean_i(p_i) - counts / N``, with ``p_i`` the softmax of
image i. For one image its only negative entry is the label (iDLG, arXiv 2001.02610); for a batch, knowing roughly what
the model answers on average gives the counts.
"""

import torch
from torch import Generator, Tensor, nn

from fl_sim.core.errors import FlSimError
from fl_sim.core.types import Observation, Tensors
from fl_sim.training.local import State, logits_of

_PROBES = 64  # images that estimate the model's mean answer


def infer_labels(seen: Observation, model: nn.Module, target: Tensors, rng: Generator) -> Tensor:
    """Labels ``(N,)`` int64, ascending, from a target gradient (or its direction).

    One image: the smallest entry of the evidence, the sign rule. A batch: counts, each class with a negative entry at
    least once, the rest by largest remainder.
    """
    evidence = last_layer_evidence(model, target)
    if seen.update.num_examples == 1:
        return evidence.argmin().reshape(1).cpu()
    counts = label_counts(evidence, mean_answer(seen, model, rng), seen.update.num_examples)
    return torch.repeat_interleave(torch.arange(len(counts)), counts)


def last_layer_evidence(model: nn.Module, target: Tensors) -> Tensor:
    """``(K,)``: the last linear layer's bias gradient, or without a bias its weight gradient's row sums.

    The row sums have the bias gradient's signs where the features are not negative (after a ReLU), but not its scale.
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise FlSimError("label inference needs a model that ends in a linear layer: grant labels in [adversary]")
    bias = f"{linear[-1]}.bias"
    return target[bias] if bias in target else target[f"{linear[-1]}.weight"].sum(dim=1)


def mean_answer(seen: Observation, model: nn.Module, rng: Generator) -> Tensor:
    """The model's mean softmax ``(K,)`` on uniform noise images: a stand-in for its answer on the client's batch."""
    images = torch.rand(_PROBES, *seen.task.image_shape, generator=rng)
    with torch.no_grad():
        device = next(iter(seen.broadcast.values())).device
        logits, _ = logits_of(model, State(seen.broadcast, seen.buffers), images.to(device))
    return logits.softmax(1).mean(0)


def label_counts(evidence: Tensor, answer: Tensor, num_examples: int) -> Tensor:
    """Integer counts ``(K,)`` that sum to ``num_examples``, closest to ``N (answer - evidence)``."""
    wanted = (num_examples * (answer - evidence)).clamp_min(0).cpu()
    counts = torch.zeros(len(wanted), dtype=torch.int64)
    certain = (evidence < 0).nonzero().squeeze(1).cpu()
    certain = certain[evidence.cpu()[certain].argsort()][:num_examples]
    counts[certain] = 1
    while int(counts.sum()) < num_examples:
        counts[(wanted - counts).argmax()] += 1
    return counts
