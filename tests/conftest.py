"""The strictest settings, and the quickest, for every test and the processes it starts: before JAX is imported."""

import importlib.metadata
import os

os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Nearly all of the suite's time is XLA's for compiling small programs. On a CPU these make it a fifth. What a program
# computes is the same up to rounding, but where that decides: at level 0 a number that is computed in two places may be
# rounded in two ways, so the gradient of jnp.max, which looks by == for what was the largest, may find nothing and be
# infinite in some lanes. XLA_FLAGS="" runs the suite as a user's program is compiled.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    # Newer versions of XLA abort at a flag that they do not know.
    + " --xla_cpu_use_fusion_emitters=false" * importlib.metadata.version("jaxlib").startswith(("0.8", "0.9", "0.10")),
)

import hypothesis

# Compiling takes longer than any deadline; the same examples each time, so that a failure stays until it is mended.
hypothesis.settings.register_profile("jaxopt_nn", deadline=None, derandomize=True)
hypothesis.settings.load_profile("jaxopt_nn")

ONE_IN = os.environ.get("ONE_IN", "40")
"""Of the cases of a test, one in so many is run; 1 for all of them."""


def pytest_collection_modifyitems(config, items):
    """Runs a part of the tables: every optimizer by every setting is thousands of programs to compile.

    Of the cases of each test one in forty is run, of most tests the first; ``make test-all`` runs all.
    """
    if any("::" in argument for argument in config.args):
        return
    cases = {}
    for item in items:
        cases.setdefault(item.nodeid.split("[")[0], []).append(item)
    kept = {item for many in cases.values() for item in many[:: int(ONE_IN)]}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]
