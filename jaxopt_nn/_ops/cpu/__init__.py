"""Fast forms for XLA's CPU backend. Arrays of images have the batch for their innermost axis here.

XLA for CPUs copies, compares and adds the windows of an array as vectors only along its innermost axes, where a few
channels are too short. Each function takes and returns ``[N, ..., C]``; where one follows the other, past activations
too, XLA leaves out the transposes in between.

Each is compiled as a whole, so that a call outside of ``jit`` compiles once for a shape.
"""

__all__: list[str] = []
