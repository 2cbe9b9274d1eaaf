"""Keras runs on JAX in these tests: chosen here, before anything imports it."""

import os

os.environ["KERAS_BACKEND"] = "jax"
