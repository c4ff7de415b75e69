"""Pickled networks are read, and nothing in them is run."""

import os
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attacks.generators.public import convert
from attacks.generators.public.unpickle import network
from fl_sim.core.errors import ConfigError
from tests.attacks.generators.public.styles import ada, rosinality


class EasyDict(dict[str, Any]):
    """As NVlabs' ``dnnlib.util.EasyDict``."""


def _reconstruct_persistent_obj(meta: Any) -> Any:
    raise AssertionError("no reader may call what a pickle names")


class Persistent(nn.Module):
    """Pickled as NVlabs' persistent classes are: state, and source code for the reader to run."""

    source: str

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.weight_gain = np.float64(0.25)
        self.table = np.zeros(3)
        self.init_kwargs = EasyDict(size=EasyDict(width=4))

    def __reduce__(self) -> Any:
        state = {name: value for name, value in self.__dict__.items() if name != "source"}
        meta = {"type": "class", "version": 6, "module_src": self.source, "class_name": "Generator", "state": state}
        return _reconstruct_persistent_obj, (meta,)


@pytest.fixture(autouse=True)
def nvlabs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules whose names the pickles have; they are needed to write, not to read."""
    for name, thing in (("torch_utils.persistence", _reconstruct_persistent_obj), ("dnnlib.util", EasyDict)):
        module = ModuleType(name)
        setattr(module, thing.__name__, thing)
        monkeypatch.setitem(sys.modules, name.split(".")[0], ModuleType(name.split(".")[0]))
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(thing, "__module__", name)


def module(tensors: dict[str, Tensor], source: str) -> Persistent:
    """A tree of modules with these parameters; filters, constants and averages are buffers."""
    root = Persistent(source)
    for name, value in tensors.items():
        *path, last = name.split(".")
        here: nn.Module = root
        for part in path:
            if part not in dict(here.named_children()):
                here.add_module(part, Persistent(source))
            here = here.get_submodule(part)
        if last in ("resample_filter", "noise_const", "w_avg"):
            here.register_buffer(last, value)
        else:
            here.register_parameter(last, nn.Parameter(value))
    return root


def write(path: Path, saved: dict[str, Tensor], source: str, protocol: int = 3) -> str:
    whole = {"G_ema": module(saved, source), "D": nn.Sequential(nn.Linear(2, 2)), "training_set_kwargs": EasyDict(x=1)}
    path.write_bytes(pickle.dumps(whole, protocol))
    return str(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensors_are_read_and_source_is_not_run(protocol: int, tmp_path: Path) -> None:
    witness, saved = tmp_path / "witness", ada(rosinality(), classes=3)
    source = f"import pathlib; pathlib.Path({str(witness)!r}).touch()"
    path = write(tmp_path / "cifar10.pkl", saved, source, protocol)
    read = network(Path(path), "G_ema")
    assert sorted(read) == sorted(saved)
    assert all(torch.equal(read[name], saved[name]) for name in saved)
    assert not witness.exists()
    exec(source)
    assert witness.exists(), "the source does what this test looks for"


def test_a_pickled_network_is_converted(tmp_path: Path) -> None:
    path = write(tmp_path / "cifar10.pkl", ada(rosinality(), classes=3), "")
    generator, about, _ = convert(path, "stylegan2_ada")
    assert (about.architecture, generator.classes, generator.image_shape) == ("stylegan2", 3, (3, 16, 16))


class Harmful:
    """Runs a command where it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.called = function, arguments

    def __reduce__(self) -> Any:
        return self.called


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("hidden", [False, True])
def test_a_harmful_pickle_is_refused_before_it_runs(protocol: int, hidden: bool, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    attacks = [
        (os.system, f"touch {witness}"),
        (exec, f"open({str(witness)!r}, 'w')"),
        (eval, "1"),
        (getattr, "x", "y"),
    ]
    for function, *arguments in attacks:
        harm = Harmful(function, *arguments)
        whole = {"G_ema": nn.Sequential(nn.Linear(1, 1)), "x": harm} if hidden else harm
        (path := tmp_path / "x.pkl").write_bytes(pickle.dumps(whole, protocol))
        with pytest.raises(ConfigError, match=r"the file asks for .*do not trust"):
            convert(str(path), "stylegan2_ada")
    assert not witness.exists()


def test_a_harmful_storage_is_refused(tmp_path: Path) -> None:
    """Bytes of a tensor are a pickle too, which torch reads under its own restrictions."""
    witness = tmp_path / "witness"
    inner = pickle.dumps(Harmful(os.system, f"touch {witness}"), 2)
    (path := tmp_path / "x.pkl").write_bytes(pickle.dumps(Harmful(torch.storage._load_from_bytes, inner)))
    with pytest.raises(ConfigError, match="expected a network pickled by"):
        convert(str(path), "stylegan2_ada")
    assert not witness.exists()


def test_a_tensor_reaches_no_further_than_its_storage(tmp_path: Path) -> None:
    rebuilt = Harmful(torch._utils._rebuild_tensor_v2, torch.zeros(4).untyped_storage(), 2, (4,), (1,), False, {})
    (path := tmp_path / "x.pkl").write_bytes(pickle.dumps({"G_ema": rebuilt}))
    with pytest.raises(ConfigError, match="expected a network pickled by"):
        network(path, "G_ema")


def test_other_pickles_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    for whole in ({"G": 1}, {"G_ema": 1}, [1]):
        path.write_bytes(pickle.dumps(whole))
        with pytest.raises(ConfigError, match="expected a dictionary with a network 'G_ema'"):
            network(path, "G_ema")
    path.write_bytes(b"\x80\x04no")
    with pytest.raises(ConfigError, match="expected a network pickled by"):
        network(path, "G_ema")
