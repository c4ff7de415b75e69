"""Which labels an update betrays: counts of classes, read off the gradient of the last layer.

Under cross-entropy that gradient is ``mean_i (p_i - e_i) [f_i, 1]^T``, with ``p_i`` the softmax of image i, ``e_i`` its
label as a vector, and ``f_i`` its features, the layer's input. What is used, and whose it is:

- One image: its label's row is the only negative one (iDLG, arXiv 2001.02610). Rows are weighed by likely features,
  which is less noisy than the bias gradient alone.
- Features after a ReLU or sigmoid are not negative, so a class with a negative entry anywhere in its row is there. Yin
  et al. (arXiv 2104.07586) take the N lowest rows; here it is all those below the noise.
- The counts over N are the mean answer ``mean_i p_i`` minus the bias gradient. The mean answer to noise images stands
  in for it: right for a fresh model, which answers everything alike (after Wainakh et al., arXiv 2105.09369).
- Otherwise a class has an answer of its own, which follows from its row (iLRG: Ma et al., ICLR 2023). Unlike theirs,
  features, answers and counts are solved for in turn until they agree.

Of the last two, the counts nearer to whole numbers are believed.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn

from fl_sim.core.errors import FlSimError
from fl_sim.core.types import Observation, Tensors
from fl_sim.training.entering import passed_on
from fl_sim.training.local import State

_PROBES = 16  # images of noise
_ROUNDING, _LOUD = 1e-5, 5.0  # what is zero: of the largest entry of a row, and in standard deviations of the noise
_WHOLE = 0.25  # counts this near to whole numbers need no second opinion
_TINY = 1e-12
_ROUNDS, _STEP = 10, 0.7  # of solving in turn; share of a new answer that is taken over, in log-probability


def infer_labels(seen: Observation, model: nn.Module, target: Tensors, rng: Generator) -> Tensor:
    """Labels ``(N,)`` int64, ascending, on the CPU, from a target gradient (or its direction)."""
    number = seen.update.num_examples
    name, layer = last_linear(model)
    features, answer = answers_to_noise(seen, model, layer, rng)
    head = Head.of(name, target, seen.broadcast, positive=bool((features >= 0).all()))
    if number == 1:
        return head.evidence(features.mean(0)).argmin().reshape(1)
    if not head.biased or (seen.update.kind == "delta" and seen.protocol is None):
        head = head.rescaled(answer)
    counts = head.counts(answer, number)
    return torch.repeat_interleave(torch.arange(len(counts)), counts)


def last_linear(model: nn.Module) -> tuple[str, nn.Linear]:
    """The last linear layer and its name.

    Raises:
        FlSimError: There is none.
    """
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise FlSimError("label inference needs a model that ends in a linear layer: grant labels in [adversary]")
    return linear[-1]


def answers_to_noise(seen: Observation, model: nn.Module, layer: nn.Linear, rng: Generator) -> tuple[Tensor, Tensor]:
    """Inputs of the last layer ``(P, F)`` on uniform noise images, and the mean softmax on them ``(K,)``; float64."""
    images = torch.rand(_PROBES, *seen.task.image_shape, generator=rng)
    with torch.no_grad():
        device = next(iter(seen.broadcast.values())).device
        given, logits = passed_on(model, State(seen.broadcast, seen.buffers), layer, images.to(device))
    return given[0].double().cpu(), logits.double().softmax(1).mean(0).cpu()


@dataclass(frozen=True, eq=False)
class Head:
    """The last layer of K classes and its gradient; float64 on the CPU.

    Args:
        gradient: ``(K, F)``, or ``(K, F + 1)`` with that of the biases as the last column.
        parameters: Likewise.
        biased: Whether that column is there.
        positive: Whether no feature is negative.
    """

    gradient: Tensor
    parameters: Tensor
    biased: bool
    positive: bool

    @classmethod
    def of(cls, name: str, target: Tensors, weights: Tensors, *, positive: bool) -> "Head":
        """Of the layer ``name``; entries of its gradient that are not finite count as zero."""
        biased = f"{name}.bias" in target

        def joined(tree: Tensors) -> Tensor:
            columns = [tree[f"{name}.weight"]] + ([tree[f"{name}.bias"][:, None]] if biased else [])
            return torch.cat(columns, 1).double().cpu()

        return cls(joined(target).nan_to_num(0.0, 0.0, 0.0), joined(weights), biased, positive)

    def evidence(self, features: Tensor | None = None) -> Tensor:
        """``mean_i (p_i - e_i)`` ``(K,)``: the bias gradient; without biases the row sums, which have its signs only.

        With likely ``features`` ``(F,)``, where no feature is negative, the rows' products with them: likewise.
        """
        if features is not None and self.positive:
            return self.gradient @ torch.cat([features, features.new_ones(int(self.biased))])
        return self.gradient[:, -1] if self.biased else self.gradient.sum(1)

    def noise(self) -> Tensor:
        """Its standard deviation on an entry of the gradient, whose columns sum to zero without; a scalar."""
        return self.gradient.sum(0).square().mean().sqrt() / math.sqrt(len(self.gradient))

    def present(self, most: int) -> Tensor:
        """Classes that must be in the batch, ascending: those with an entry well below zero, the lowest ``most``."""
        entries = self.gradient if self.positive else self.evidence()[:, None]
        floor = torch.maximum(_ROUNDING * entries.abs().amax(1), _LOUD * self.noise())
        lowest = entries.amin(1)
        sure = (lowest < -floor).nonzero()[:, 0]
        return sure[lowest[sure].argsort()[:most]].sort().values

    def doubt(self, answer: Tensor) -> Tensor:
        """How far the evidence is from none, 1 being that of a model that answers everything with ``answer``; >= 0.

        A scalar: what the classes of negative evidence are given, over what ``answer`` leaves them to be given.
        """
        evidence = self.evidence()
        return -evidence.clamp_max(0).sum() / (1 - answer[evidence < 0].sum()).clamp_min(_TINY)

    def rescaled(self, answer: Tensor) -> "Head":
        """With the scale that its gradient would have if the model answered everything with ``answer``."""
        return replace(self, gradient=self.gradient / self.doubt(answer).clamp_min(_TINY))

    def counts(self, answer: Tensor, number: int) -> Tensor:
        """Integers ``(K,)`` that sum to ``number``, for a model that answers noise with ``answer``."""
        there = self.present(number)
        wanted = number * (answer - self.evidence())
        if self.biased and len(there) and unevenness(wanted) > _WHOLE + _LOUD * number * self.noise():
            wanted = min(wanted, self.counts_by_class(answer, number, there), key=unevenness)
        return whole(wanted, there, number)

    def counts_by_class(self, answer: Tensor, number: int, there: Tensor) -> Tensor:
        """``(K,)`` float: right if the images of a class are alike, whatever they are.

        With answers ``p_c`` of the classes ``there``, ``N gradient = sum_c n_c (p_c - e_c) [f_c, 1]^T`` gives counts
        and features, and features give answers. The first ones lie between the label and ``answer``.
        """
        labels = torch.eye(len(answer), dtype=answer.dtype)[there]
        doubt = self.doubt(answer).clamp(1e-3, 1)
        logits = (doubt * answer + (1 - doubt) * labels).clamp_min(_TINY).log()
        for _ in range(_ROUNDS):
            errors = logits.softmax(1) - labels
            scaled = torch.linalg.lstsq(errors.T, number * self.gradient, driver="gelsd", rcond=1e-9).solution
            features = scaled / scaled[:, -1:].clamp(0.2, number)
            features[:, -1] = 1
            features = features.clamp_min(0) if self.positive else features
            new = (features @ self.parameters.T).log_softmax(1).clamp_min(-28)
            logits = (1 - _STEP) * logits + _STEP * new
        counts = answer.new_zeros(len(answer)).index_put((there,), scaled[:, -1].clamp(0, number))
        return number * counts / counts.sum().clamp_min(_TINY)


def unevenness(counts: Tensor) -> float:
    """Distance of the entry that is farthest from a whole number; in [0, 0.5]."""
    return float((counts - counts.round()).abs().max())


def whole(wanted: Tensor, there: Tensor, number: int) -> Tensor:
    """Integers ``(K,)`` that sum to ``number``: 1 for each class ``there``, then by largest remainder of ``wanted``."""
    counts = torch.zeros(len(wanted), dtype=torch.int64)
    counts[there] = 1
    while int(counts.sum()) < number:
        counts[(wanted - counts).argmax()] += 1
    return counts
