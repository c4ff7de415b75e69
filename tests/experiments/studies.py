"""Studies small enough for tests."""

from torch import nn

TINY = """# Is this a test? Expected: yes.
name = "tiny"
model = {name = "mlp", widths = [16]}
[federation]
clients = 2
rounds = 2
[[attacks]]
name = "inverting_gradients"
steps = 30
[[attacks]]
name = "ratio"
[evaluation]
test_images = 50
public_images = 20
lpips = false
gifd_compat = true
[grid]
defense = ["none", {name = "gaussian", std = 0.1}]
"""


def with_dropout() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
