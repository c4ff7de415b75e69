"""Studies small enough for tests."""

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
[grid]
defense = ["none", {name = "gaussian", std = 0.1}]
"""
