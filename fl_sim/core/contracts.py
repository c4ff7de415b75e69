"""The verbs: what an attack and a defense are. Read this file first.

A :class:`ModelDefense` changes the network that everyone has. A client runs its other defenses in the order data ->
gradient -> update: a :class:`DataDefense` changes the batch, a :class:`GradientDefense` computes the gradient its own
way, a :class:`Defense` rewrites what is sent. Only the last kind has a codec for the wire; it and an
:class:`ExampleDefense` have a density that the adversary can use.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

from torch import Generator, nn

from fl_sim.core.codec import Codec, Dense
from fl_sim.core.density import Choice, Interval, Noise
from fl_sim.core.errors import FlSimError, NoDensityError
from fl_sim.core.granted import refuse_rounds, refuse_ungranted
from fl_sim.core.knowledge import Kind
from fl_sim.core.mechanism import Mechanism
from fl_sim.core.precision import exact_products
from fl_sim.core.types import Batch, Observation, Reconstruction, Tensors, Update


class Attack(ABC):
    """Turns one observation into a guess at the batch behind it."""

    needs: ClassVar[frozenset[str]] = frozenset()
    """What it cannot do without, of ``labels``, ``protocol`` and ``defense`` (at least which mechanisms there are)."""

    joins_rounds: ClassVar[bool] = False
    """Whether it fits several observations of the same images together."""

    @property
    def work(self) -> int:
        """Steps on one observation, all starts counted, that several observations take together; 0: they do not."""
        return 0

    @final
    def __call__(self, seen: Observation, model: nn.Module, rng: Generator, device: str = "cpu") -> Reconstruction:
        """Check the threat model, attack, check the answer's shape and range.

        Args:
            seen: On any device; its tensors are not written to.
            model: Architecture only; its weights are replaced by ``seen.broadcast``.
            rng: A CPU generator: the same draws on every device.

        Raises:
            UnmetKnowledgeError: As :meth:`check` says.
        """
        self.check(seen, model)
        with exact_products():
            guess = self._reconstruct(seen, model, rng, device)
        self._verify(guess, seen)
        return guess

    @final
    def batched(
        self, seen: Sequence[Observation], model: nn.Module, rngs: Sequence[Generator], device: str = "cpu"
    ) -> list[Reconstruction]:
        """One reconstruction an observation, each as a call of its own would give it, rounding apart; faster together.

        Rounding, and time: a budget in seconds is one for the whole batch, as large as theirs together.

        Args:
            seen, rngs: Observations and their generators, in the same order.
            model, device: As in a call. A reconstruction's seconds are its share of the whole.

        Raises:
            UnmetKnowledgeError: As :meth:`check` says, of any of them.
        """
        for one in seen:
            self.check(one, model)
        with exact_products():
            guesses = self._batched(seen, model, rngs, device)
        for guess, one in zip(guesses, seen, strict=True):
            self._verify(guess, one)
        return guesses

    def _batched(
        self, seen: Sequence[Observation], model: nn.Module, rngs: Sequence[Generator], device: str
    ) -> list[Reconstruction]:
        """One after the other, unless an attack knows better."""
        return [self._reconstruct(one, model, rng, device) for one, rng in zip(seen, rngs, strict=True)]

    def _verify(self, guess: Reconstruction, seen: Observation) -> None:
        shape = (seen.update.num_examples, *seen.task.image_shape)
        if tuple(guess.images.shape) != shape or not ((guess.images >= 0) & (guess.images <= 1)).all():
            raise FlSimError(
                f"{type(self).__name__} must return images {shape} in [0, 1], "
                f"got {tuple(guess.images.shape)} in [{guess.images.min()}, {guess.images.max()}]"
            )

    @final
    def check(self, seen: Observation, model: nn.Module) -> None:
        """Refuse what can only fail; nothing is searched, so that a study can ask before anything is trained.

        Raises:
            UnmetKnowledgeError: ``seen`` lacks something in ``needs``, or the attack is not one for this observation's
                kind or for this model.
            ConfigError: A file that the attack uses is of other images.
        """
        refuse_ungranted(type(self).__name__, self.needs, seen)
        refuse_rounds(type(self).__name__, seen, model, joins=self.joins_rounds)
        self._check(seen, model)

    def _check(self, seen: Observation, model: nn.Module) -> None:
        """What else it cannot do without; as :meth:`check`."""
        del seen, model

    @abstractmethod
    def _reconstruct(self, seen: Observation, model: nn.Module, rng: Generator, device: str) -> Reconstruction: ...


@dataclass(frozen=True, slots=True)
class Protected:
    """A defended update, figures on what was done to it, and what the mechanism drew."""

    update: Update
    stats: Mapping[str, float]
    randomness: Tensors = field(default_factory=dict)


class Defense(Mechanism, ABC):
    """Rewrites an update on the client, before it is sent.

    What an adversary who knows it can use is said by the methods below; :mod:`fl_sim.core.density` joins those of a
    stack. A mechanism has at least one of them, or its stack has no density.
    """

    leaks: ClassVar[frozenset[str]] = frozenset()
    """What it draws that an adversary might come to know, such as ``mask``."""

    feedback: bool = False
    """Error feedback (arXiv 1809.07599, 1901.09847): what is lost here, the client adds to what it defends next time.

    For mechanisms that lose less than they are given, or what is owed grows without end. The client does it,
    :meth:`protect` does not; it is then given more than this round's update, which no adversary knows: such a stack has
    no density. What it sends is of earlier images too, and reconstructions are judged by this round's."""

    @property
    def codec(self) -> Codec:
        """How its output travels; every entry as it is, unless said otherwise."""
        return Dense()

    @abstractmethod
    def protect(self, update: Update, rng: Generator) -> Protected: ...

    def choices(self, clean: Tensors, drawn: Tensors) -> tuple[Choice, ...]:
        """What may have become of each entry of ``clean`` ``(T, *shape)``, independently; differentiable in it.

        Args:
            drawn: What this mechanism drew, where the adversary knows it; empty otherwise.

        Raises:
            NoDensityError: There is no such finite list.
        """
        del clean, drawn
        raise NoDensityError(f"{type(self).__name__} before noise has no density")

    def noise(self, num_examples: int) -> Noise | None:
        """The law of the independent noise it adds to every entry; ``None``: it adds none."""
        del num_examples
        return None

    def shown(self, output: Tensors) -> Tensors:
        """What it drew, as far as its own output, known exactly, shows that; empty: nothing."""
        del output
        return {}

    def bounds(self, output: Interval) -> Interval | None:
        """Between what its input must have been, given bounds on its output; ``None``: it says nothing of that."""
        del output
        return None


class ModelDefense(Mechanism, ABC):
    """Changes the network, before training: server, clients and attacks all have the changed one.

    The adversary knows it as it knows any architecture. What it draws in its forward passes
    (:mod:`fl_sim.core.stochastic`) only the client knows; given that, the density of an update is that of the others.
    """

    @abstractmethod
    def wrap(self, model: nn.Module, rng: Generator) -> nn.Module:
        """A new network with the inputs and outputs of ``model``, which is left as it is.

        Args:
            rng: Draws the weights that are added.

        Raises:
            ConfigError: ``model`` has no place for it.
        """


class DataDefense(Mechanism, ABC):
    """Changes a client's batch before any gradient is taken."""

    @abstractmethod
    def transform(self, batch: Batch, rng: Generator) -> Batch: ...


class GradientDefense(Mechanism, ABC):
    """Computes the gradient of a batch in its own way: per-example clipping, say."""

    @abstractmethod
    def gradient(self, model: nn.Module, weights: Tensors, buffers: Tensors, batch: Batch, rng: Generator) -> Tensors:
        """Named like ``weights``; replaces the plain mean gradient."""

    def check(self, model: nn.Module) -> None:
        """Refuse a model that it cannot defend, with a ``ConfigError``; before anything is trained."""
        del model


class ExampleDefense(GradientDefense):
    """Joins the gradients of single examples into one, and adds noise: DP-SGD (arXiv 1607.00133)."""

    @abstractmethod
    def join(self, examples: Tensors) -> Tensors:
        """``(T, N, *shape)`` to ``(T, *shape)``, before noise; differentiable."""

    @abstractmethod
    def noise(self, num_examples: int) -> Noise | None:
        """The law of the noise on every entry of what is joined; ``None``: none."""


AnyDefense = Defense | DataDefense | GradientDefense | ModelDefense


def kind_of(defense: AnyDefense) -> Kind:
    """What remains of a defense when its strength is kept secret."""
    return Kind(type(defense), feedback=isinstance(defense, Defense) and defense.feedback)


def has_density(kind: type) -> bool:
    """Whether defenses of this class say what an adversary can use of them."""
    if issubclass(kind, Defense):
        return any(getattr(kind, name) is not getattr(Defense, name) for name in ("choices", "noise", "bounds"))
    return issubclass(kind, ExampleDefense)
