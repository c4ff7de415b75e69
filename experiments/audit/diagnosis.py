"""The usual mistakes of a record, each with the figure that shows it.

A diagnosis answers for one update: ``fits``, ``wrong``, or ``cannot tell`` where its figure is not to be had.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias

from experiments.audit import figures
from experiments.audit.evidence import Evidence
from experiments.audit.figures import Figure

Verdict: TypeAlias = Literal["fits", "wrong", "cannot tell"]


class Diagnosis(NamedTuple):
    """A mistake, the figure that shows it, and what to do; a row of the table in ``docs/audit.md``."""

    mistake: str
    figure: str
    remedy: str
    measure: Callable[[Evidence], Figure | None]


DIAGNOSES: Mapping[str, Diagnosis] = MappingProxyType(
    {
        "buffers": Diagnosis(
            "batch-norm statistics were not recorded",
            "statistics of the model that are missing in `before`",
            "save the whole state dict, not `model.parameters()`; the attack's network answers otherwise than the "
            "client's",
            figures.buffers,
        ),
        "batchnorm": Diagnosis(
            "clients trained batch norm in train mode, or did not, against what the protocol says",
            "relative change of the running statistics between `before` and `after`; without them, the cosine of "
            "weights with their gradients before batch norm, which is 0 in train mode",
            "set protocol.batchnorm",
            figures.batchnorm,
        ),
        "steps": Diagnosis(
            "local epochs, batch size or number of examples are wrong",
            "batches that batch norm counted (`num_batches_tracked`), over the protocol's steps",
            "correct local_epochs, batch_size or examples",
            figures.steps,
        ),
        "loss": Diagnosis(
            "the update is not plain SGD on softmax cross-entropy, or the names are mixed up",
            "sum of the last biases' gradient over the sum of its absolute values, which is 0 for cross-entropy",
            "check the optimiser (Adam, weight decay), the loss (sigmoids, a class more) and names",
            figures.loss,
        ),
        "optimiser": Diagnosis(
            "the clients' optimiser scales each entry, as Adam or signs do",
            "share of the entries that moved which moved as far as the median one does (1 %)",
            "record gradients instead, or train by SGD: such a step is no multiple of the gradient",
            figures.optimiser,
        ),
        "sign": Diagnosis(
            "the change was taken the wrong way round (before minus after), or the gradient negated",
            "factor between the last biases' gradient and what it must be; negative",
            "swap before and after, or negate the change",
            figures.sign,
        ),
        "learning_rate": Diagnosis(
            "wrong learning rate, number of steps, or a loss summed over the batch",
            "the same factor, positive: how many times the stated learning rate was the true one; label counts are "
            "whole only after division by it",
            "multiply protocol.learning_rate by it, or correct local_epochs, batch_size, momentum",
            figures.learning_rate,
        ),
        "broadcast": Diagnosis(
            "`before` is not what the client started from (another round's, or after aggregation), or mixed-up names",
            "1 minus the cosine between the last biases' gradient and the one recomputed from the features it betrays",
            "record the weights that were sent in that round",
            figures.broadcast,
        ),
        "names": Diagnosis(
            "name map mixed up, or a square matrix transposed",
            "share of a layer's bias gradient that lies outside the columns of its weight gradient, which must be 0",
            "correct names or transpose",
            figures.names,
        ),
        "examples": Diagnosis(
            "more images are behind the update than stated, or it is a sum over clients or rounds",
            "share of the last linear layer's gradient beyond as many directions as there are images",
            "correct examples, or record each client alone",
            figures.examples,
        ),
        "model": Diagnosis(
            "another model: its activation differs",
            "lowest feature before the last layer, in units of the largest; not negative behind ReLU or sigmoid",
            "correct model",
            figures.model,
        ),
        "normalisation": Diagnosis(
            "wrong mean and std: images were normalised otherwise, or not at all",
            "range of the pixels that the first linear layer's weight and bias gradients give by their ratio; within "
            "0 to 1 and not squeezed into mean to mean + std",
            "set task.mean and task.std to those of the clients' transform (0 and 1 where there is none)",
            figures.normalisation,
        ),
        "frozen": Diagnosis(
            "layers that did not train: frozen, personal to the client, or matched by the wrong name",
            "share of tensors that did not move at all",
            "no remedy where layers are frozen on purpose; else correct names",
            figures.frozen,
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a diagnosis came to, of all updates that it could tell of: the worst figure, and in how many it is wrong."""

    diagnosis: str
    verdict: Verdict
    figure: float | None
    says: str
    wrong: int
    told: int

    def as_dict(self) -> dict[str, Any]:
        """With what it means and what to do."""
        diagnosis = DIAGNOSES[self.diagnosis]
        return asdict(self) | {"mistake": diagnosis.mistake, "remedy": diagnosis.remedy}


def diagnose(updates: Iterable[Evidence], *, defended: bool) -> list[Finding]:
    """Every diagnosis, of all updates together, which are gone through once.

    Args:
        defended: Whether the clients defend their updates: then no figure is what it must be, and none can be told.
    """
    found: dict[str, list[Figure]] = {name: [] for name in DIAGNOSES}
    for evidence in updates:
        for name, diagnosis in DIAGNOSES.items():
            if not defended and (figure := diagnosis.measure(evidence)) is not None:
                found[name].append(figure)
    return [_finding(name, told) for name, told in found.items()]


def _finding(name: str, figures_: list[Figure]) -> Finding:
    if not figures_:
        return Finding(name, "cannot tell", None, "no update shows it", 0, 0)
    worst = max(figures_, key=lambda figure: (figure.wrong, abs(figure.value)))
    wrong = sum(figure.wrong for figure in figures_)
    return Finding(name, "wrong" if wrong else "fits", worst.value, worst.says, wrong, len(figures_))
