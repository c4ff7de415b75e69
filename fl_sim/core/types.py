"""The nouns: what moves between stages. All frozen; tensors are never written in place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple, TypeAlias

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from fl_sim.core.knowledge import Knowledge
from fl_sim.core.part import part

Tensors: TypeAlias = Mapping[str, Tensor]
"""Parameter name to tensor, in the model's own order."""

UpdateKind: TypeAlias = Literal["gradient", "delta"]
"""What an update is: the gradient itself (FedSGD), or local minus broadcast weights (FedAvg)."""


class Batch(NamedTuple):
    """Images ``(N, C, H, W)`` float32 in [0, 1] and labels ``(N,)`` int64.

    Where a defense has mixed images, labels are weights ``(N, k)`` float32 of the first k classes; others have none.
    """

    images: Tensor
    labels: Tensor


class Outcome(StrEnum):
    """How a reconstruction ended. Anything but CONVERGED is a result, never a silent zero image."""

    CONVERGED = "converged"
    OUT_OF_STEPS = "out-of-steps"
    OUT_OF_TIME = "out-of-time"
    NON_FINITE = "non-finite"


@part
class Protocol:
    """What a client does with the weights it is sent; public to the server as far as the study discloses it.

    Args:
        mode: ``fedsgd``: one gradient of one batch is sent. ``fedavg``: local SGD, and the weights' change is sent.
        learning_rate: Step of the local SGD, and of the server's step in ``fedsgd``.
        local_epochs: Passes over the round's images (``fedavg``).
        batch_size: Images per gradient; in ``fedsgd`` also what a client uses in a round, or all if it holds fewer.
        momentum: Of the local SGD, fresh each round.
        sampling: ``shuffle``: an epoch's batches divide a shuffle of the images. ``poisson`` (``fedavg``): a step draws
            each image with probability ``batch_size / n`` and divides the sum of gradients by ``batch_size``, however
            many were drawn: what DP-SGD's amplification supposes.
        batchnorm: ``eval``: running statistics; ``train``: batch statistics, and the running ones are updated and sent.
    """

    mode: Literal["fedsgd", "fedavg"] = "fedsgd"
    learning_rate: PositiveFloat = 0.1
    local_epochs: PositiveInt = 1
    batch_size: PositiveInt = 1
    momentum: NonNegativeFloat = 0.0
    sampling: Literal["shuffle", "poisson"] = "shuffle"
    batchnorm: Literal["eval", "train"] = "eval"

    @property
    def round_size(self) -> int | None:
        """Most images that a client uses in a round; ``None``: all it holds."""
        return self.batch_size if self.mode == "fedsgd" else None

    def images(self, num_examples: int) -> int:
        """How often a client that holds ``num_examples`` images uses one of them in a round; on average, if sampled."""
        return min(num_examples, self.batch_size) if self.mode == "fedsgd" else self.local_epochs * num_examples

    def steps(self, num_examples: int) -> int:
        """SGD steps on ``num_examples`` images: an epoch's last batch may be smaller; Poisson samples are as many as
        make up the images on average.
        """
        if self.mode == "fedsgd":
            return 1
        if self.sampling == "poisson":
            return self.local_epochs * max(1, round(num_examples / self.batch_size))
        return self.local_epochs * -(-num_examples // self.batch_size)

    def rate(self, num_examples: int) -> float:
        """Chance of an image to be in a Poisson sample; 1 where every image is in every epoch."""
        return min(1.0, self.batch_size / num_examples) if self.sampling == "poisson" else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What one client sends back.

    ``delta`` is a gradient or a weight change, as ``kind`` says; ``buffers`` are the client's new batch-norm
    statistics, empty where the protocol leaves them alone.
    """

    delta: Tensors
    num_examples: int
    kind: UpdateKind = "gradient"
    buffers: Tensors = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What every party knows of the learning task.

    ``mean`` and ``std`` are per channel: the model normalises by them, and attacks may search in that space.
    """

    image_shape: tuple[int, int, int]  # (C, H, W)
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """All the adversary has of one client (or of one aggregate) in one round. ``None`` means "may not know"."""

    round: int  # from 1
    client: int  # its partition, from 0; the first member's for an aggregate
    members: tuple[int, ...]  # whose data is inside: one client, or all of an aggregate
    task: Task
    broadcast: Tensors  # the weights the client started from
    buffers: Tensors  # batch-norm statistics broadcast with them
    update: Update  # as received, after any defense
    protocol: Protocol | None = None
    knowledge: Knowledge = field(default_factory=Knowledge)
    earlier: tuple["Observation", ...] = ()  # of other rounds, taken to be of the same images: to be fitted together

    @property
    def one_step(self) -> bool:
        """Whether the update is the gradient of one client's whole batch, times a factor that is known."""
        if len(self.members) > 1 or self.update.kind == "gradient":
            return len(self.members) == 1
        known = self.protocol
        return known is not None and known.sampling == "shuffle" and known.steps(self.update.num_examples) == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a reconstruction cost."""

    iterations: int
    seconds: float
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """What an attack believes the batch was."""

    images: Tensor  # (N, C, H, W) float32 in [0, 1]
    labels: Tensor  # (N,) int64, given or inferred
    outcome: Outcome
    loss: float  # the attack's own final objective; knows nothing of the truth
    budget: Budget
