"""What in a study cannot go together, though each of it could be built."""

from collections.abc import Iterator
from itertools import pairwise

from defenses import DEFENSES
from defenses.mixing import InstaHide, Mixup
from experiments.build import Cell
from experiments.config import Study
from fl_sim.core.contracts import ExampleDefense, GradientDefense
from fl_sim.core.errors import ConfigError
from fl_sim.federation.central import CENTRAL
from fl_sim.federation.wire import NUM_EXAMPLES
from fl_sim.training.local import state_of


def clashes(study: Study) -> Iterator[str]:
    """Of a cell's study, each in words."""
    yield from _numbers(study)
    yield from _sampling(study)
    yield from _defenses(study)


def central(cell: Cell, data_dir: str | None) -> None:
    """Central differential privacy is what it says only for equal clients, each of whose updates the server sees.

    Raises:
        ConfigError: It would not be.
    """
    if cell.study.federation.strategy != CENTRAL:
        return
    federation, data, found = cell.study.federation, cell.data(data_dir), []
    size = cell.protocol().round_size
    counts = {len(data.used(client, 1, size)) for client in range(federation.clients)}
    if len(counts) > 1:
        found.append(
            f"clients of one size, for FedAvg weighs them by it and the noise fits equal weights; got {min(counts)} to "
            f"{max(counts)} images: set data.per_client, or a more even partition"
        )
    if cell.study.adversary.view == "aggregate":
        found.append('a server that clips each update, which it must see: set adversary.view = "client"')
    if (key := federation.strategy_options.get("weighted_by_key", NUM_EXAMPLES)) != NUM_EXAMPLES:
        found.append(f"clients that count alike, got weighted_by_key = {key!r}, which they choose: leave it out")
    if names := sorted(state_of(cell.model(data.task())()).buffers):
        found.append(f"a model without batch norm, whose statistics would be noised too, got {names[0]}: take another")
    if found:
        raise ConfigError([f"federation.strategy {CENTRAL}: expected {problem}" for problem in found])


def _defenses(study: Study) -> Iterator[str]:
    """Defenses that cannot work together, or not with the protocol."""
    made = [DEFENSES[part.name] for part in study.defenses if part.name in DEFENSES]
    on_gradient = [d.__name__ for d in made if isinstance(d, type) and issubclass(d, GradientDefense)]
    if len(on_gradient) > 1:
        yield f"defenses: expected at most one that computes the gradient, got {', '.join(on_gradient)}: leave one"
    if study.federation.batchnorm == "train" and any(
        isinstance(d, type) and issubclass(d, ExampleDefense) for d in made
    ):
        yield (
            "defenses: dpsgd needs the gradient of each example alone, which batch statistics mix: set "
            'federation.batchnorm = "eval"'
        )
    names = [part.name for part in study.defenses]
    if {"clip", "gaussian"} <= set(names) and study.federation.batchnorm == "train":
        yield (
            "defenses: clip and gaussian promise nothing where batch statistics are sent beside the update: set "
            'federation.batchnorm = "eval", or take another noise'
        )
    for sparse, signs in pairwise(names):
        if sparse in {"topk", "random_prune"} and signs == "signsgd":
            yield f"defenses: signsgd after {sparse} would send every zero as a positive entry: leave one of them out"
    if study.adversary.labels and (mixers := sorted({"mixup", "instahide"} & set(names))):
        yield (
            f"adversary.labels: blends have no class that could be granted behind {mixers[0]}: set labels = false, "
            "and take dlg, which searches labels too"
        )


def _sampling(study: Study) -> Iterator[str]:
    """Where Poisson samples cannot be drawn, or would not hide what they are to hide."""
    federation, made = study.federation, [DEFENSES.get(part.name) for part in study.defenses]
    if federation.sampling == "shuffle":
        return
    said = 'federation.sampling = "poisson": expected'
    if federation.mode == "fedsgd":
        yield (
            f"{said} fedavg: in fedsgd the batch is the update, and how many images are in it, or that none is, would "
            'have to be hidden from the server: set mode = "fedavg", or sampling = "shuffle"'
        )
    if federation.batchnorm == "train":
        yield f'{said} batchnorm = "eval": a sample may be empty, and then has no statistics'
    if other := [
        d.__name__
        for d in made
        if isinstance(d, type) and issubclass(d, GradientDefense) and not issubclass(d, ExampleDefense)
    ]:
        yield f"{said} gradients of examples, alone or by dpsgd: {other[0]} has none of an empty sample: leave it out"


def mixable(cell: Cell, data_dir: str | None) -> None:
    """Defenses that mix images have as many as they mix.

    Raises:
        ConfigError: Some client has fewer.
    """
    federation, data = cell.study.federation, cell.data(data_dir)
    size = cell.protocol().round_size
    fewest = min(len(data.used(client, 1, size)) for client in range(federation.clients))
    mixes = max((d.mixes for d in cell.defenses() if isinstance(d, (Mixup, InstaHide))), default=0)
    if fewest < mixes:
        raise ConfigError(
            f"defenses: {cell.defense}: expected {mixes} images or more to mix in a client's round, got {fewest}: "
            "raise federation.batch_size (fedsgd) or data.per_client (fedavg)"
        )


def _numbers(study: Study) -> Iterator[str]:
    """Clients, rounds, paths and labels."""
    federation, adversary = study.federation, study.adversary
    if study.data.path is not None and study.data.name not in {"npz", "folder"}:
        yield f"data.path: expected only with npz or folder, got it with {study.data.name!r}: remove one of them"
    if (federation.cohort or 0) > federation.clients:
        yield f"federation.cohort: expected at most clients = {federation.clients}, got {federation.cohort}"
    for client in adversary.clients or []:
        if client >= federation.clients:
            yield f"adversary.clients: expected numbers below clients = {federation.clients}, got {client}"
    for number in adversary.rounds or []:
        if number > federation.rounds:
            yield f"adversary.rounds: expected numbers up to rounds = {federation.rounds}, got {number}"
    if adversary.rounds is not None and adversary.records is not None:
        yield "adversary: expected rounds or records, got both: leave one of them out"
    keys = [part.key() for part in study.attacks]
    for key in sorted({k for k in keys if keys.count(k) > 1}):
        yield f"attacks: expected different labels, got {key!r} twice: give each a label"
