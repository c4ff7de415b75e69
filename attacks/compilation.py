"""A search's step as one compiled function: PyTorch's inductor joins what would be hundreds of small operations.

Compiling takes the better part of a minute, so it is for long work on small networks; :func:`pays` says which. What was
compiled is kept: in the process for other observations, whose tensors are arguments and not constants of the function,
and in a folder for other processes. Numbers are constants: an attack that takes one from the observation, such as a
noise level it supposes, is compiled a few times and then no more. On a GPU the derivative of a step is one CUDA graph;
for want of a GPU that was never run.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

Step: TypeAlias = Callable[..., tuple[Tensor, ...]]

_PLACE = "TORCHINDUCTOR_CACHE_DIR"
_STEPS = 100_000  # of one target and start: below, compiling costs more than it saves
_EACH = 500  # of one target: tracing a job costs what some 200 steps of eight save
_WEIGHTS = 1_000_000  # of a network: above, its time goes into matrix products, which are fast already
_KINDS = 4  # programs for tensors of the same shapes; more are a number that differs from observation to observation
_MODES: Mapping[str, str] = MappingProxyType({"cuda": "reduce-overhead"})  # of torch.compile, by device
_enabled: ContextVar[bool] = ContextVar("enabled", default=False)
_compiled: dict[tuple[object, ...], Step] = {}


def pays(steps: int, each: int, network: nn.Module) -> bool:
    """Whether to compile for so many steps in all, and ``each`` on a target, where there is a compiler."""
    small = sum(w.numel() for w in network.parameters()) <= _WEIGHTS
    return small and steps >= _STEPS and each >= _EACH and shutil.which(os.environ.get("CXX", "g++")) is not None


@contextmanager
def compiling(folder: Path | None) -> Iterator[None]:
    """Searches inside compile their steps and keep the result in ``folder``; ``None``: they do not.

    The folder holds programs that are run: it must be one's own, never part of what others send.
    """
    before, token = os.environ.get(_PLACE), _enabled.set(folder is not None)
    if folder is not None:
        os.environ[_PLACE] = str(folder.absolute())
    try:
        yield
    finally:
        _enabled.reset(token)
        os.environ.pop(_PLACE, None)
        if before is not None:
            os.environ[_PLACE] = before


@dataclass(frozen=True)
class Program:
    """A compiled step, whose number of trials is fixed.

    Args:
        step: Of a factor and of values, each with a trial dimension, to tensors that have one.
        computed: Trials that it computes, wanted or not.
        trials: That are asked of it.
    """

    step: Step
    computed: int
    trials: int

    def __call__(self, factor: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        return self.step(factor, *values)

    def only(self, kept: Tensor) -> "Program | None":
        """For the trials ``kept``, by place; ``None`` where most of what it computes would be thrown away.

        In the places of the others it computes the first one again: to trace and compile anew would take longer.
        """
        if 2 * len(kept) <= self.computed:
            return None
        places = kept.new_zeros(self.trials).index_copy(0, kept, torch.arange(len(kept), device=kept.device))

        def step(factor: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
            return tuple(found[kept] for found in self.step(factor, *(v[places] for v in values)))

        return Program(step, self.computed, len(kept))


def compiled(step: Step, *example: Tensor) -> Program | None:
    """``step``, a function of tensors like ``example``, compiled; ``None`` where that is not wanted or fails.

    The first of ``example`` has no trial dimension, the others have. It must not look at values, and gives tensors
    without gradients.
    """
    if not _enabled.get():
        return None
    step(*example)  # what is computed once and kept must not be computed, and kept, while tracing
    try:
        graph = make_fx(step)(*example)
        constants = _lifted(graph)
        like = tuple((tuple(t.shape), t.dtype, t.stride(), t.device) for t in (*example, *constants))
        if (graph.code, like) not in _compiled:
            if sum(shapes == like for _, shapes in _compiled) >= _KINDS:
                return None
            _compiled[graph.code, like] = torch.compile(graph, mode=_MODES.get(example[0].device.type))
        made = _compiled[graph.code, like]
        _without_gradients(made, example, constants)
    except Exception as error:
        logging.getLogger(__name__).warning("not compiled, going on without: %s", str(error).partition("\n")[0])
        return None
    trials = len(example[1])
    return Program(lambda *inputs: _without_gradients(made, inputs, constants), trials, trials)


def _without_gradients(made: Step, inputs: tuple[Tensor, ...], constants: list[Tensor]) -> tuple[Tensor, ...]:
    # what a CUDA graph gave the last time is not looked at any more
    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return made(*(t.detach() for t in inputs), *constants)


def _lifted(graph: GraphModule) -> list[Tensor]:
    """Turn the graph's constants into arguments, after its own, and return their values."""
    values: list[Tensor] = []
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    found: dict[str, Any] = {}  # nodes, by the constant they stand for
    for node in [node for node in graph.graph.nodes if node.op == "get_attr"]:
        name = str(node.target)
        if name not in found:
            values.append(getattr(graph, name).detach())
            with graph.graph.inserting_after(last):
                last = found[name] = graph.graph.placeholder(f"constant_{len(values)}")
        node.replace_all_uses_with(found[name])
        graph.graph.erase_node(node)
    for name in found:
        delattr(graph, name)  # or it would hold one observation's tensors for as long as it is kept
    graph.recompile()
    return values
