"""The strictest settings, for every test and the processes it starts: set before JAX is imported."""

import os

os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"

import hypothesis

# Compiling takes longer than any deadline; the same examples each time, so that a failure stays until it is mended.
hypothesis.settings.register_profile("jaxopt_nn", deadline=None, derandomize=True)
hypothesis.settings.load_profile("jaxopt_nn")
