"""What a run will cost, before it runs."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxopt_nn import _ops
from jaxopt_nn._jaxprs.equations import opened, programs_in
from jaxopt_nn._jaxprs.flops import count_bytes, count_flops

__all__ = ["Explanation", "explain"]


class Explanation(NamedTuple):
    """What a program costs, read from its trace and its compiled form. Nothing was run.

    Attributes:
        flops: floating-point operations of one call, with every iteration of a loop counted; a run that stops early
            does fewer. A multiply-add counts as two, and each number of any other result as one.
        bytes_moved: what matrix products, convolutions, reductions, gathers and scatters read and write, counted in the
            same way; what is computed number by number is taken to be fused with them. FLOPs a byte tell whether the
            arithmetic or the memory bounds the speed.
        parameters: numbers in the ``params`` that it returns, as of a result or a state; 0 if it returns none. Under
            ``vmap``, those of all lanes.
        argument_bytes, result_bytes: of its arguments and of its result, on one device.
        temporary_bytes: of intermediate values.
        device_bytes: the memory of one device, or of the host if programs run there; None if the device does not say.
        equations: in the traced program; those inside of a loop are counted once.
        instructions: in the compiled program.
        trace_seconds, compile_seconds: how long both took just now.
    """

    flops: int
    bytes_moved: int
    parameters: int
    argument_bytes: int
    result_bytes: int
    temporary_bytes: int
    device_bytes: int | None
    equations: int
    instructions: int
    trace_seconds: float
    compile_seconds: float

    @property
    def peak_bytes(self) -> int:
        """The memory of one call on one device: arguments, results and temporaries."""
        return self.argument_bytes + self.result_bytes + self.temporary_bytes

    @property
    def fits(self) -> bool:
        """Whether ``peak_bytes`` is no more than the device has; True if the device does not say."""
        return self.device_bytes is None or self.peak_bytes <= self.device_bytes

    def assert_fits(self) -> None:
        """Raises ``MemoryError`` unless :attr:`fits`."""
        if not self.fits:
            assert self.device_bytes is not None
            parts = {
                "arguments": self.argument_bytes,
                "results": self.result_bytes,
                "temporaries": self.temporary_bytes,
            }
            raise MemoryError(
                f"the program needs {_bytes(self.peak_bytes)} and the device has {_bytes(self.device_bytes)}; "
                f"most of it are {max(parts, key=parts.__getitem__)}, {_bytes(max(parts.values()))}"
            )

    def __str__(self) -> str:
        device = "unknown" if self.device_bytes is None else _bytes(self.device_bytes)
        rows = [
            ("FLOPs", _number(self.flops)),
            ("bytes moved", f"{_bytes(self.bytes_moved)}, {self.flops / max(self.bytes_moved, 1):.1f} FLOPs a byte"),
            ("parameters", f"{self.parameters:,}"),
            ("memory", f"{_bytes(self.peak_bytes)} of {device}" + ("" if self.fits else ": DOES NOT FIT")),
            ("  arguments", _bytes(self.argument_bytes)),
            ("  results", _bytes(self.result_bytes)),
            ("  temporaries", _bytes(self.temporary_bytes)),
            ("program", f"{self.equations:,} equations, {self.instructions:,} instructions"),
            ("tracing", f"{self.trace_seconds:.2f} s"),
            ("compiling", f"{self.compile_seconds:.2f} s"),
        ]
        return "\n".join(f"{name:<14}{value}" for name, value in rows)


def explain(run: Callable[..., Any], *args: Any, **kwargs: Any) -> Explanation:
    """What a call of a function would cost: FLOPs, memory, size of the program, time to compile.

    The function is traced and compiled, and not run. Its arguments may be ``jax.ShapeDtypeStruct`` instead of arrays.

    Args:
        run: a function that ``jax.jit`` takes, jitted or not: from :func:`make_run`, with or without ``vmap``, or a
            step.
        args, kwargs: its arguments.

    Returns:
        The :class:`Explanation`, which prints as a table.

    Raises:
        TypeError: ``run`` is no function, or arguments that ``jax.jit`` does not take.
        MemoryError: the compiler refuses the program, since the device has not enough memory for it.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn import layers, losses, optimizers, training
    >>> from jaxopt_nn.types import Batch
    >>> def recipe(rate):
    ...     return training.Recipe(
    ...         model=layers.dense(1), loss=losses.mean_squared_error, optimizer=optimizers.sgd(rate), batch_size=4)
    >>> train = Batch(jnp.ones((8, 3)), jnp.ones((8, 1)))
    >>> cost = training.explain(training.make_run(recipe), jax.random.key(0), 0.1, train)
    >>> cost.parameters, cost.fits, cost.flops > 1000
    (4, True, True)
    """
    if not callable(run):
        raise TypeError(f"run: expected a function, as make_run(recipe) returns, got {run!r}")
    jitted: Any = run if hasattr(run, "lower") else jax.jit(run)
    started = time.perf_counter()
    traced = jitted.trace(*args, **kwargs)
    lowered = traced.lower()
    traced_at = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise MemoryError(f"the program does not fit the device: {str(error).splitlines()[0]}") from error
    ended = time.perf_counter()
    flops, shapes = count_flops(lambda args, kwargs: run(*args, **kwargs), args, kwargs)
    memory = compiled.memory_analysis()
    return Explanation(
        flops=flops,
        bytes_moved=count_bytes(lambda args, kwargs: run(*args, **kwargs), args, kwargs),
        parameters=_parameters(shapes),
        argument_bytes=memory.argument_size_in_bytes,
        result_bytes=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        device_bytes=_ops.device_memory(),
        equations=_equations(traced.jaxpr.jaxpr),
        instructions=sum(" = " in line for line in compiled.as_text().splitlines()),
        trace_seconds=traced_at - started,
        compile_seconds=ended - traced_at,
    )


def _parameters(shapes: Any) -> int:
    """The numbers in the ``params`` of what is returned, alone or, as a step does, in a tuple."""
    nodes = jax.tree.leaves(shapes, is_leaf=lambda node: hasattr(node, "params"))
    return sum(leaf.size for node in nodes[:1] for leaf in jax.tree.leaves(getattr(node, "params", None)))


def _equations(jaxpr: Any) -> int:
    return sum(
        1 + sum(_equations(opened(program)) for program in programs_in(equation.params)) for equation in jaxpr.eqns
    )


def _number(value: float) -> str:
    for limit, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.1f} {unit}"
    return f"{value:.0f}"


def _bytes(value: float) -> str:
    for limit, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= limit:
            return f"{value / limit:.1f} {unit}"
    return f"{value:.0f} B"
