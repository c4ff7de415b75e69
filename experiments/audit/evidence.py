"""What a recorded update says of itself: the last layer's account of images, labels and step size.

Under cross-entropy the gradient of the last layer is ``mean_i (p_i - e_i) [f_i, 1]^T``, as in :mod:`attacks.labels`. Of
one image everything in it is known: features ``f`` are the ratio of weight and bias gradients, the answer ``p`` follows
from them and the weights that were sent, and the gradient must be that answer minus a label, times one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from attacks.labels import answers_to_noise, last_linear, unevenness
from attacks.problem import gradient_scale
from fl_sim.core.errors import FlSimError
from fl_sim.core.seeds import derive
from fl_sim.core.trees import scale
from fl_sim.core.types import Observation, Tensors

_ALIKE = 3.0  # times what chance gives it: the most that a class may get from a model that answers all images alike
_EVEN = 0.25  # counts this near to whole numbers are counts
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Account:
    """How the update's last biases compare with what they must be, where that is known.

    Args:
        factor: Observed over due: 1 where the learning rate and the steps are right, negative where the sign is wrong.
        cosine: Between the two, without sign; 1 where the weights are those that the client started from.
        exact: Of one image in one step, so that any other factor is wrong; else an estimate.
    """

    factor: float
    cosine: float
    exact: bool


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One recorded update, and what was recorded beside it.

    Args:
        model: Architecture; its weights do not count.
        absent: Batch-norm statistics of the model that were not recorded.
        counted: Batches that batch norm counted between before and after; ``None``: not recorded.
    """

    seen: Observation
    model: nn.Module
    absent: tuple[str, ...] = ()
    counted: int | None = None

    @property
    def images(self) -> int:
        return self.seen.update.num_examples

    @cached_property
    def steps(self) -> int:
        """As far as the protocol is known; else taken for one."""
        protocol = self.seen.protocol
        return protocol.steps(-(-self.images // len(self.seen.members))) if protocol else 1

    @property
    def single(self) -> bool:
        """Whether one image's gradient, once, is all there is."""
        return self.images == self.steps == 1

    @cached_property
    def gradient(self) -> Tensors:
        """The mean gradient that the update stands for, float64."""
        factor = gradient_scale(self.seen) or -1.0
        return {name: t.double() for name, t in scale(self.seen.update.delta, 1 / factor).items()}

    def biased(self) -> Iterator[tuple[str, nn.Linear, Tensor, Tensor]]:
        """Linear layers with biases that moved: name, layer, gradients ``(out, in)`` and ``(out,)``."""
        for name, layer in self.model.named_modules():
            weight, bias = self.gradient.get(f"{name}.weight"), self.gradient.get(f"{name}.bias")
            if isinstance(layer, nn.Linear) and weight is not None and bias is not None and bool(bias.any()):
                yield name, layer, weight, bias

    @cached_property
    def head(self) -> tuple[str, Tensor, Tensor] | None:
        """The last layer's name and gradients; ``None`` where it is not linear, or without biases."""
        try:
            last, _ = last_linear(self.model)
        except FlSimError:
            return None
        return next(((name, weight, bias) for name, _, weight, bias in self.biased() if name == last), None)

    @cached_property
    def features(self) -> Tensor | None:
        """Inputs of the last layer ``(F,)``, where there is one image."""
        if self.head is None or self.images > 1:
            return None
        _, weight, bias = self.head
        return weight.T @ bias / bias.square().sum()

    @cached_property
    def noise(self) -> tuple[Tensor, Tensor]:
        """Inputs of the last layer on noise images ``(P, F)`` and the mean answer ``(K,)``."""
        self.model.eval()
        _, layer = last_linear(self.model)
        return answers_to_noise(self.seen, self.model, layer, derive(0, "evidence"))

    @cached_property
    def account(self) -> Account | None:
        if self.head is None or not bool(torch.isfinite(self.head[2]).all()):
            return None
        return self._of_one() if self.images == 1 else self._of_several()

    def _of_one(self) -> Account:
        """The answer recomputed from the features; the label is the largest entry, whatever its sign."""
        assert self.head is not None
        assert self.features is not None
        name, _, bias = self.head
        sent = self.seen.broadcast
        due = (sent[f"{name}.weight"].double() @ self.features + sent[f"{name}.bias"].double()).softmax(0)
        due = due - torch.eye(len(due), dtype=due.dtype)[bias.abs().argmax()]
        product, norm = bias @ due, due.norm().clamp_min(_TINY)
        return Account(float(product / norm**2), float((product / norm / bias.norm()).abs()), self.single)

    def _of_several(self) -> Account | None:
        """By classes that are not there, whose entries are the mean answer times the factor: of a model that answers
        everything alike. The sign is the one for which the counts of the other classes are whole numbers."""
        assert self.head is not None
        if float(self.noise[1].max()) > _ALIKE / len(self.noise[1]):
            return None
        factors = [(sign, self._whole(sign * self.head[2])) for sign in (1.0, -1.0)]
        found = [sign * factor for sign, factor in factors if factor is not None]
        return Account(found[0], 1.0, exact=False) if len(found) == 1 else None

    def _whole(self, bias: Tensor) -> float | None:
        """The factor for which counts are whole; ``None``: there is none."""
        _, answer = self.noise
        there = bias < 0
        if len(bias) - int(there.sum()) < 2 or not bool(there.any()):
            return None
        factor = float((bias[~there] / answer[~there]).median())
        counts = self.images * (answer - bias / max(factor, _TINY))
        return factor if unevenness(counts) < _EVEN and bool((counts.round() >= 0).all()) else None
