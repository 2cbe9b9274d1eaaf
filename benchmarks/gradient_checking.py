"""``python -m benchmarks.gradient_checking [--quick] [--seeds N] [--pieces bugs,correct] [--json OUT]``.

Planted bugs, each with a correct twin, and random correct cases, under our checker and the ones that people have:
``jax.test_util.check_grads`` (default, in float64, with tight tolerances) and torch's ``gradcheck`` (slow and fast)
where torch is installed. All of them see the same functions: a custom rule around one operation, its output weighted
and reduced, beside a second leaf that is right. Nothing is timed.
"""

import argparse
import json
import platform
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from jaxopt_nn.checking import check_gradients

try:
    import torch
except ImportError:
    torch = None

RESULTS = Path(__file__).parent / "results" / "gradient-checking.json"
SIZES = {100: "1e2", 1_000: "1e3", 100_000: "1e5"}
REDUCTIONS = {"mean": jnp.mean, "sum": jnp.sum, "vector": lambda y: y}


class Bug(NamedTuple):
    """A wrong operation with its correct twin.

    Attributes:
        make: ``make(n, wrong) -> op``, an operation on ``[n]`` arrays.
        says: what the report says of it where it is right about the cause.
        point: what the operation is evaluated at, of a generator and n.
        order: the order of derivative that is wrong.
        dtypes: where it is a bug.
    """

    make: Callable[[int, bool], Callable[[Any], Any]]
    says: str
    point: Callable[[Any, int], Any] = lambda rng, n: rng.standard_normal(n)
    order: int = 1
    dtypes: tuple[str, ...] = ("float32", "float64")


def ruled(forward: Callable[[Any], Any], backward: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    op = jax.custom_vjp(forward)
    op.defvjp(lambda x: (forward(x), x), lambda x, ct: (backward(x, ct).astype(x.dtype),))
    return op


def right_or(forward: Callable[[Any], Any], wrong_backward: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """An operation with a rule: the right one from JAX, or a wrong one."""
    right = lambda x, ct: jax.vjp(forward, x)[1](ct)[0]  # noqa: E731
    return lambda n, wrong: ruled(forward, wrong_backward if wrong else right)


def columns(x: Any) -> Any:
    return x.reshape(-1, 10)


def normalize(x: Any) -> Any:
    x = columns(x)
    return ((x - x.mean(0, keepdims=True)) / jnp.sqrt(x.var(0, keepdims=True) + 1e-5)).ravel()


def normalize_without_variance(x: Any, ct: Any) -> Any:
    x, ct = columns(x), columns(ct)
    return ((ct - ct.mean(0, keepdims=True)) / jnp.sqrt(x.var(0, keepdims=True) + 1e-5)).ravel()


def softmax(x: Any) -> Any:
    return jax.nn.softmax(columns(x), axis=-1).ravel()


def softmax_without_cross(x: Any, ct: Any) -> Any:
    p = softmax(x)
    return ct * p * (1 - p)


def dropped(x: Any) -> Any:
    return jnp.where(np.random.default_rng(0).random(x.shape) < 0.8, jnp.sin(x) / 0.8, 0.0)


def dropped_again(x: Any) -> Any:
    return jnp.where(np.random.default_rng(1).random(x.shape) < 0.8, jnp.sin(x) / 0.8, 0.0)


def pooled(x: Any) -> Any:
    return jnp.repeat(jnp.max(x.reshape(-1, 2), axis=-1), 2)


def pooled_to_all_ties(x: Any, ct: Any) -> Any:
    pairs = x.reshape(-1, 2)
    top = pairs == jnp.max(pairs, axis=-1, keepdims=True)
    return (top * ct.reshape(-1, 2).sum(-1, keepdims=True)).ravel()


def one_flipped(n: int, wrong: bool) -> Callable[[Any], Any]:
    place = (7 * n) // 11
    return ruled(jnp.sin, lambda x, ct: (ct * jnp.cos(x)).at[place].multiply(-1.0 if wrong else 1.0))


def by_jvp(n: int, wrong: bool) -> Callable[[Any], Any]:
    op = jax.custom_jvp(lambda x: jnp.sin(x))
    op.defjvps(lambda t, out, x: (1.01 if wrong else 1.0) * jnp.cos(x) * t)
    return op


def stopped(n: int, wrong: bool) -> Callable[[Any], Any]:
    return lambda x: jnp.sin(jax.lax.stop_gradient(x) if wrong else x) + jnp.cos(2 * x)


def penalty(n: int, wrong: bool) -> Callable[[Any], Any]:
    """The sine, and 0.01·Σx² as one more output."""
    l2 = ruled(lambda x: 0.01 * jnp.sum(x**2), lambda x, ct: (0.04 if wrong else 0.02) * ct * x)
    return lambda x: jnp.concatenate([jnp.sin(x), l2(x)[None]])


def cancelling(n: int, wrong: bool) -> Callable[[Any], Any]:
    def op(x: Any) -> Any:
        variance = jnp.mean(x**2) - jnp.mean(x) ** 2 if wrong else jnp.mean((x - jnp.mean(x)) ** 2)
        return ((x - jnp.mean(x)) / jnp.sqrt(variance + 1e-5)) ** 3

    return op


def rooted(n: int, wrong: bool) -> Callable[[Any], Any]:
    return lambda x: jnp.where(x > 0, jnp.sqrt(x if wrong else jnp.where(x > 0, x, 1.0)), 0.0)


def constant_slope(n: int, wrong: bool) -> Callable[[Any], Any]:
    keep = jax.lax.stop_gradient if wrong else lambda x: x
    op = jax.custom_vjp(jnp.sin)
    op.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (ct * keep(jnp.cos(x)),))
    return lambda x: op(x) ** 2


BUGS = {
    "x2": Bug(right_or(jnp.sin, lambda x, ct: 2 * ct * jnp.cos(x)), "ratio 2.0000"),
    "x1.01": Bug(right_or(jnp.sin, lambda x, ct: 1.01 * ct * jnp.cos(x)), "ratio 1.0100"),
    "x1.0001": Bug(right_or(jnp.sin, lambda x, ct: 1.0001 * ct * jnp.cos(x)), "ratio 1.0001"),
    "ignores the cotangent": Bug(right_or(jnp.sin, lambda x, ct: jnp.cos(x)), "the custom_vjp rule of"),
    "custom_jvp x1.01": Bug(by_jvp, "ratio 1.0100"),
    "stop_gradient": Bug(stopped, "stop_gradient at"),
    "batch norm without variance": Bug(right_or(normalize, normalize_without_variance), "rule of normalize"),
    "softmax without cross term": Bug(right_or(softmax, softmax_without_cross), "rule of softmax"),
    "mean over B-1": Bug(
        lambda n, wrong: ruled(lambda x: x**2 / n, lambda x, ct: 2 * ct * x / (n - 1 if wrong else n)), "B/(B-1)"
    ),
    "L2 twice": Bug(penalty, "λ·w|counts twice"),
    "dropout resampled": Bug(
        right_or(dropped, lambda x, ct: jax.vjp(dropped_again, x)[1](ct)[0]), "rule of dropped"
    ),
    "leaky slope lost": Bug(
        right_or(lambda x: jax.nn.leaky_relu(x, 0.1), lambda x, ct: jnp.where(x > 0, ct, 0.0)), "there claimed is zero"
    ),
    "max-pool to all ties": Bug(
        right_or(pooled, pooled_to_all_ties), "rule of pooled|coordinates are wrong|several ties",
        point=lambda rng, n: np.repeat(rng.standard_normal(n // 2), 2),
    ),
    "one coordinate": Bug(one_flipped, "1 of"),
    "E[x²]-E[x]² in float32": Bug(
        cancelling, "more than half of the digits", point=lambda rng, n: rng.standard_normal(n) + 3000,
        dtypes=("float32",),
    ),
    "sqrt under where": Bug(
        rooted, "not finite",
        point=lambda rng, n: np.where(np.arange(n) == n // 3, -1.0, np.abs(rng.standard_normal(n)) + 0.1),
    ),
    "right gradient and wrong Hv": Bug(constant_slope, "second order", order=2),
}  # fmt: skip


def case(name: str, n: int, reduction: str, dtype: str, seed: int, wrong: bool) -> tuple[Callable[..., Any], Any]:
    """``(f, point)``: the reduced and weighted operation on leaf ``bug``, and a leaf ``right`` beside it."""
    bug, rng = BUGS[name], np.random.default_rng((seed, n))
    op, reduce = bug.make(n, wrong), REDUCTIONS[reduction]
    point = {"bug": bug.point(rng, n).astype(dtype), "right": rng.standard_normal(n).astype(dtype)}
    weight = rng.uniform(0.5, 1.5, n + 1)

    def f(leaves: Any) -> Any:
        y, z = op(leaves["bug"]), jnp.sin(leaves["right"])
        y = y * jnp.asarray(weight[: y.size], y.dtype)
        return jnp.concatenate([y, z]) if reduction == "vector" else reduce(y) + reduce(z)

    return f, point


def ours(f: Callable[..., Any], point: Any, bug: Bug, seed: int) -> dict[str, Any]:
    report = check_gradients(f, point, key=jax.random.key(seed + 1000), order=bug.order)
    bad = {leaf.path for leaf in report.leaves if leaf.verdict not in ("PASS", "KINK_OK", "DEAD")}
    bad |= {leaf.path for leaf in report.leaves if leaf.dtype_verdict == "FAIL"}
    if report.second is not None:
        bad |= {leaf.path for leaf in report.second.leaves if leaf.verdict not in ("PASS", "KINK_OK", "DEAD")}
    return {
        "passed": report.ok,
        "leaf": bad == {"bug"},
        "hypothesis": any(word in str(report) for word in bug.says.split("|")),
        "evaluations": report.evaluations,
        "text": str(report),
    }


def passes(check: Callable[[], Any]) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check()
    except Exception:  # each checker has exceptions of its own
        return False
    return True


def peers(f: Callable[..., Any], point: Any, bug: Bug, n: int, dtype: str) -> dict[str, bool]:
    """Whether each peer lets the case pass; what it cannot do in reasonable time is left out."""
    f, order = jax.jit(f), bug.order
    found = {"check_grads": passes(lambda: check_grads(f, (point,), order, modes=["rev"]))}
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: np.asarray(x, np.float64), point)
        found["check_grads x64"] = passes(lambda: check_grads(f, (wide,), order, modes=["rev"]))
        found["check_grads tight"] = passes(
            lambda: check_grads(f, (wide,), order, modes=["rev"], atol=1e-6, rtol=1e-6, eps=1e-5)
        )
    if torch is not None and order == 1:
        with jax.enable_x64(dtype == "float64"):
            function, inputs = as_torch(f, point)
            found["torch fast"] = passes(lambda: torch.autograd.gradcheck(function, inputs, fast_mode=True))
            if n <= 100:
                found["torch slow"] = passes(lambda: torch.autograd.gradcheck(function, inputs))
    return found


def as_torch(f: Callable[..., Any], point: Any) -> tuple[Any, Any]:
    """F with its claimed gradient as a function of torch tensors, in the dtype of the point."""
    forward = jax.jit(lambda a, b: f({"bug": a, "right": b}))
    back = jax.jit(lambda a, b, ct: jax.vjp(forward, a, b)[1](ct))

    class Wrapped(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: Any, b: Any) -> Any:
            ctx.save_for_backward(a, b)
            return torch.from_numpy(np.array(forward(a.detach().numpy(), b.detach().numpy())))

        @staticmethod
        def backward(ctx: Any, *cts: Any) -> Any:
            a, b = ctx.saved_tensors
            found = back(a.detach().numpy(), b.detach().numpy(), jnp.asarray(cts[0].numpy()))
            return tuple(torch.from_numpy(np.array(x)) for x in found)

    return Wrapped.apply, [torch.tensor(point[name], requires_grad=True) for name in ("bug", "right")]


def measure_bug(name: str, sizes: list[int], seeds: int) -> dict[str, Any]:
    """A planted bug and its twin in every cell."""
    total: Counter[str] = Counter()
    misses: list[str] = []
    for n in sizes:
        for dtype in BUGS[name].dtypes:
            for reduction in REDUCTIONS:
                for seed in range(seeds if n < 100_000 else 1):
                    one_cell(name, n, reduction, dtype, seed, total, misses)
    print(f"{name:30s}", dict(total), flush=True)
    return {"sizes": sizes, "seeds": seeds, **total, "missed": misses}


def one_cell(name: str, n: int, reduction: str, dtype: str, seed: int, total: Counter[str], misses: list[str]) -> None:
    bug, cell = BUGS[name], f"{name} {SIZES[n]} {dtype} {reduction} seed {seed}"
    for wrong in (True, False):
        with jax.enable_x64(dtype == "float64"):
            f, point = case(name, n, reduction, dtype, seed, wrong)
            found = ours(f, point, bug, seed)
        kind = "bug" if wrong else "twin"
        total[f"{kind} runs"] += 1
        total[f"{kind} passed: ours"] += found["passed"]
        if wrong and not found["passed"]:
            total["right leaf"] += found["leaf"]
            total["right hypothesis"] += found["hypothesis"]
        if found["passed"] == wrong or (wrong and not (found["leaf"] and found["hypothesis"])):
            misses.append(f"{kind}: {cell}\n{found['text'][:1200]}")
        if seed == 0:
            with jax.enable_x64(dtype == "float64"):
                for peer, passed in peers(f, point, bug, n, dtype).items():
                    total[f"{kind} runs: {peer}"] += 1
                    total[f"{kind} passed: {peer}"] += passed


def correct(checks: int, lanes: int) -> Iterator[dict[str, Any]]:
    """Random correct cases: ``lanes`` nets of one kind, each a leaf of one function, ``checks`` kinds; so far."""
    verdicts: Counter[str] = Counter()
    alarms: list[str] = []
    for seed in range(checks):
        rng = np.random.default_rng(seed)
        activation = [jnp.tanh, jax.nn.relu, jax.nn.gelu, jax.nn.softplus, jnp.abs, jax.nn.leaky_relu][seed % 6]
        rows, inputs, hidden = (int(rng.integers(1, 6)) for _ in range(3))
        tied, scale, reduce = seed % 5 == 0, 10.0 ** rng.uniform(-3, 3), (jnp.mean, jnp.sum)[seed % 2]
        x = rng.standard_normal((rows, inputs))
        mask = rng.random((rows, hidden)) < 0.8
        size = inputs * hidden + hidden

        def net(w: Any, x: Any = x, mask: Any = mask, act: Any = activation, red: Any = reduce, s: Any = scale) -> Any:
            kernel, bias = w[: x.shape[1] * mask.shape[1]].reshape(x.shape[1], -1), w[x.shape[1] * mask.shape[1] :]
            h = act(x @ kernel + bias[None]) * mask
            return s * (red(h**2) + red(jnp.max(h, axis=-1)) + red(jax.nn.logsumexp(h, axis=-1)))

        draw = (lambda: rng.choice((-1.0, 0.0, 1.0), size)) if tied else (lambda: rng.standard_normal(size))  # noqa: B023
        point = {f"{i:03d}": draw().astype(np.float32) for i in range(lanes)}
        report = check_gradients(
            lambda p, net=net: jnp.sum(jax.vmap(net)(jnp.stack(list(p.values())))),
            point,
            key=jax.random.key(seed),
            directions=2,
        )
        verdicts.update(leaf.verdict for leaf in report.leaves)
        wrong = [leaf for leaf in report.leaves if leaf.verdict in ("FAIL", "BLOCKED", "NONDETERMINISTIC")]
        wrong += [leaf for leaf in report.leaves if leaf.dtype_verdict == "FAIL"]
        alarms += [
            f"check {seed}, {activation.__name__}, tied {tied}: {leaf.path} {leaf.verdict} {leaf.hypothesis}"
            for leaf in wrong
        ]
        print(seed, dict(verdicts), len(alarms), flush=True)
        yield {"cases": sum(verdicts.values()), "verdicts": dict(verdicts), "false_alarms": alarms}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gradient_checking")
    parser.add_argument("--quick", action="store_true", help="a smoke test: its figures mean little")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--sizes", default="100,1000,100000")
    parser.add_argument("--checks", type=int, default=100, help="of 100 random correct cases each")
    parser.add_argument("--pieces", default="bugs,correct")
    parser.add_argument("--bugs", default=",".join(BUGS), help="which of them, by name")
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.sizes, arguments.checks = 1, "100", 2
    results = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    versions = {"python": platform.python_version(), "jax": jax.__version__}
    results["versions"] = versions | {"torch": torch.__version__ if torch is not None else "absent"}
    sizes = [int(size) for size in arguments.sizes.split(",")]

    def keep() -> None:  # piece by piece: a long campaign may be interrupted and gone on with
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")

    if "bugs" in arguments.pieces:
        for name in arguments.bugs.split(","):
            results.setdefault("bugs", {})[name] = measure_bug(name, sizes, arguments.seeds)
            keep()
    if "correct" in arguments.pieces:
        for piece in correct(arguments.checks, 100):
            results["correct"] = piece
            keep()


if __name__ == "__main__":
    main()
