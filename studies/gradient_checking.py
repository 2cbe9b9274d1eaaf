"""``python -m studies.gradient_checking [--quick] [--seeds N] [--first-seed N] [--pieces ...] [--json X]``.

Planted bugs, each with a correct twin, and random correct cases, under our checker and the ones that people have:
``jax.test_util.check_grads`` (default, in float64, with tight tolerances) and torch's ``gradcheck`` (slow and fast, in
float64) where torch is installed. Nothing is timed. The checker was developed on seeds below 100: a clean campaign
starts above (``--first-seed``).
"""

import argparse
import itertools
import json
import platform
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from jaxopt_nn.checking import GradientReport, check_gradients
from studies import correct_nets, hard_cases, planted_nets
from studies.planted_bugs import BUGS, REDUCTIONS, Bug, case

try:
    import torch
    from torch.autograd.gradcheck import GradcheckError
except ImportError:
    torch, GradcheckError = None, AssertionError

RESULTS = Path(__file__).parent / "results" / "gradient-checking.json"
FINE = ("PASS", "KINK_OK", "DEAD")
SIZES = {100: "1e2", 1_000: "1e3", 100_000: "1e5"}


def ours(f: Callable[..., Any], point: Any, bug: Bug, seed: int) -> dict[str, Any]:
    report = check_gradients(f, point, key=jax.random.key(seed + 1000), order=bug.order)
    bad = {leaf.path for leaf in report.leaves if leaf.verdict not in FINE}
    bad |= {leaf.path for leaf in report.leaves if leaf.dtype_verdict == "FAIL"}
    if report.second is not None:
        bad |= {leaf.path for leaf in report.second.leaves if leaf.verdict not in FINE}
    return {
        "passed": report.ok,
        "leaf": bad == {"bug"},
        "hypothesis": any(word in " ".join(str(report).split()) for word in bug.says.split("|")),
        "evaluations": report.evaluations,
        "text": str(report),
    }


def judged(check: Callable[[], Any]) -> str:
    """What a peer says: ``passed`` or ``caught``; an ``error: ...`` is neither, whoever made it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check()
    except (AssertionError, GradcheckError):
        return "caught"
    except Exception as error:  # is counted in a column of its own and shown, never taken for a verdict
        return f"error: {type(error).__name__}: {str(error)[:300]}"
    return "passed"


def peers(f: Callable[..., Any], point: Any, bug: Bug, n: int) -> dict[str, str]:
    """What each peer says of a case; what it cannot do in reasonable time is left out. All but the first in float64."""
    f, order = jax.jit(f), bug.order
    found = {"check_grads": judged(lambda: check_grads(f, (point,), order, modes=["rev"]))}
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: np.asarray(x, np.float64), point)
        found["check_grads x64"] = judged(lambda: check_grads(f, (wide,), order, modes=["rev"]))
        found["check_grads tight"] = judged(
            lambda: check_grads(f, (wide,), order, modes=["rev"], atol=1e-6, rtol=1e-6, eps=1e-5)
        )
        if torch is not None and order == 1:
            function, inputs = as_torch(f, wide)
            found["torch fast"] = judged(lambda: torch.autograd.gradcheck(function, inputs, fast_mode=True))
            if n <= 100:
                found["torch slow"] = judged(lambda: torch.autograd.gradcheck(function, inputs))
    return found


def as_torch(f: Callable[..., Any], point: Any) -> tuple[Any, Any]:
    """F with its claimed gradient as a function of torch tensors."""
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


def measure_bug(name: str, sizes: list[int], seeds: range) -> dict[str, Any]:
    """A planted bug and its twin in every cell; the peers see the first seed only."""
    total: Counter[str] = Counter()
    misses: list[str] = []
    errors: list[str] = []
    for n in sizes:
        for dtype in BUGS[name].dtypes:
            for reduction in REDUCTIONS:
                for seed in seeds if n < 100_000 else seeds[:1]:
                    with jax.enable_x64(dtype == "float64"):
                        cell = f"{name} {SIZES[n]} {dtype} {reduction} seed {seed}"
                        for wrong in (True, False):
                            f, point = case(name, n, reduction, dtype, seed, wrong)
                            kind = f"{'bug' if wrong else 'twin'}: {cell}"
                            _count_ours(kind, ours(f, point, BUGS[name], seed), wrong, total, misses)
                            if seed == seeds[0]:
                                _count_peers(kind, peers(f, point, BUGS[name], n), total, errors)
    print(f"{name:30s}", dict(total), flush=True)
    return {"sizes": sizes, "seeds": [seeds[0], seeds[-1]], **total, "missed": misses, "errors": errors}


def _count_ours(kind: str, found: dict[str, Any], wrong: bool, total: Counter[str], misses: list[str]) -> None:
    who = kind.split(":")[0]
    total[f"{who} runs"] += 1
    total[f"{who} passed: ours"] += found["passed"]
    total[f"{who} evaluations: ours"] += found["evaluations"]
    if wrong and not found["passed"]:
        total["right leaf"] += found["leaf"]
        total["right hypothesis"] += found["hypothesis"]
    if found["passed"] == wrong or (wrong and not (found["leaf"] and found["hypothesis"])):
        misses.append(f"{kind}\n{found['text'][:1200]}")


def _count_peers(kind: str, said: dict[str, str], total: Counter[str], errors: list[str]) -> None:
    who = kind.split(":")[0]
    for peer, verdict in said.items():
        total[f"{who} runs: {peer}"] += 1
        total[f"{who} passed: {peer}"] += verdict == "passed"
        total[f"{who} errors: {peer}"] += verdict.startswith("error")
        if verdict.startswith("error"):
            errors.append(f"{kind}: {peer}: {verdict}")


def measure_nets(seeds: range) -> dict[str, Any]:
    """Backpropagation by hand through a net, with one bug at a time and without: verdicts and leaves; ours alone."""
    found: dict[str, Any] = {"seeds": [seeds[0], seeds[-1]], "bugs": list(planted_nets.BUGS)}
    for name, f in (("ours", planted_nets.loss), ("ours, differences alone", planted_nets.opaque_loss)):
        total: Counter[str] = Counter()
        misses: list[str] = []
        for seed, bug in itertools.product(seeds, ("", *planted_nets.BUGS)):
            with jax.enable_x64(True):
                params, data = planted_nets.draw(seed)
                claim = planted_nets.backpropagation(bug)
                right, claimed = (backward(params, *data) for backward in (planted_nets.backpropagation(), claim))
                wrong = {path for path in right if not np.allclose(right[path], claimed[path], rtol=1e-9, atol=1e-14)}
                key = jax.random.key(seed + 1000)
                report = check_gradients(f, params, *data, grad_fn=claim, argnums=0, key=key)
            kind = "bug" if wrong else "right"
            total[f"{kind} runs"] += 1
            total[f"{kind} passed"] += report.ok
            total[f"{kind} right leaves"] += {leaf.path for leaf in report.leaves if leaf.verdict == "FAIL"} == wrong
            total[f"{kind} evaluations"] += report.evaluations
            if report.ok == bool(wrong):
                misses.append(f"{kind}: {bug} seed {seed}\n{report}")
        print(f"nets, {name:24s}", dict(total), flush=True)
        found[name] = {**total, "missed": misses}
    return found


def check_case(f: Callable[..., Any], structure: correct_nets.Structure, point: Any, seed: int) -> GradientReport:
    """The report on a random correct case."""
    return check_gradients(
        f,
        *point,
        key=jax.random.key(seed),
        argnums=structure.argnums,
        order=structure.order,
        each_leaf=structure.each_leaf,
    )


def correct(seeds: range, cases: int) -> Iterator[dict[str, Any]]:
    """Random correct cases: ``cases`` of one structure, a structure a seed; what there is so far.

    A case is a whole report: it is a false alarm if any leaf is wrong in it, or its Hessian asymmetric. That a right
    gradient has lost more than half of its digits in its own dtype is a verdict of its own, and counted by itself, with
    how much of the gradient is lost in the worst leaf, by its definition: that is no alarm if it is true.
    """
    made: set[correct_nets.Structure] = set()
    verdicts: Counter[str] = Counter()
    leaves: Counter[str] = Counter()
    tied = 0
    alarms: list[str] = []
    lost: list[str] = []
    inconclusive: list[str] = []
    for seed in seeds:
        structure = correct_nets.structure(seed)
        made.add(structure)
        f = jax.jit(correct_nets.loss_of(structure))
        for number in range(cases):
            with jax.enable_x64(structure.dtype == "float64"):
                point, ties = correct_nets.draw(structure, seed, number)
                report = check_case(f, structure, point, seed * cases + number)
            tied += ties
            orders = [report, *([] if report.second is None else [report.second])]
            rows = [leaf for one in orders for leaf in one.leaves]
            leaves.update(leaf.verdict for leaf in rows)
            fine = all(leaf.verdict in (*FINE, "INCONCLUSIVE") for leaf in rows)
            short = fine and any(leaf.dtype_verdict == "FAIL" for leaf in rows)
            wrong = not short and any(one.verdict not in (*FINE, "INCONCLUSIVE") for one in orders)
            unsure = not wrong and not short and not report.ok
            kind = "false alarm" if wrong else "digits lost" if short else "inconclusive" if unsure else "ok"
            verdicts[kind] += 1
            text = f"seed {seed} case {number} tied {ties} {structure}\n{report}"
            if wrong:
                alarms.append(text)
            elif short:
                share = _lost(f, point, structure)
                lost.append(f"{share:.2g} of a leaf's gradient is lost in {structure.dtype}: {text}")
            elif unsure:
                inconclusive.append(text[:600])
        print(seed, dict(verdicts), dict(leaves), flush=True)
        yield {
            "seeds": [seeds[0], seed],
            "structures": len(made),
            "cases": sum(verdicts.values()),
            "tied cases": tied,
            "reports": dict(verdicts),
            "leaves": dict(leaves),
            "false_alarms": alarms,
            "digits_lost": lost,
            "inconclusive": inconclusive[:20],
        }


def _lost(f: Callable[..., Any], point: tuple[Any, ...], structure: correct_nets.Structure) -> float:
    """The largest relative difference, over leaves, of the gradient in its own dtype from that in float64."""
    leaves, tree = jax.tree.flatten(point)

    def value(*point: Any) -> Any:
        return jnp.sum(f(*point))

    narrow = jax.tree.leaves(jax.grad(value, structure.argnums)(*point))
    with jax.enable_x64(True):
        wide = [np.asarray(leaf, np.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf for leaf in leaves]
        exact = jax.tree.leaves(jax.grad(value, structure.argnums)(*jax.tree.unflatten(tree, wide)))
    norm = np.linalg.norm
    pairs = [(np.asarray(a, np.float64), np.asarray(b)) for a, b in zip(narrow, exact, strict=True)]
    return max(float(norm(a - b) / norm(b)) for a, b in pairs if norm(b) > 0)


def measure_hard(family: str, seeds: range, sizes: tuple[int, ...]) -> dict[str, Any]:
    """A family of ``hard_cases``: how many wrong gradients are ok, and right ones that FAIL, or are INCONCLUSIVE."""
    found: dict[str, Any] = {"seeds": [seeds[0], seeds[-1]], "sizes": list(sizes)}
    for name in ("ours", "ours, differences alone"):
        total: Counter[str] = Counter()
        misses: list[str] = []
        for seed in seeds:
            for one in hard_cases.FAMILIES[family][0](seed, sizes):
                f = one.f if name == "ours" else hard_cases.opaque(one.f)
                for bug, claim in {"": one.right, **one.wrong}.items():
                    with jax.enable_x64(True):
                        report = check_gradients(f, one.point, key=jax.random.key(seed + 1000), grad_fn=claim)
                    kind = "bug" if bug else "right"
                    total[f"{kind} runs"] += 1
                    total[f"{kind} {report.verdict}"] += 1
                    total[f"{kind} evaluations"] += report.evaluations
                    if report.ok == bool(bug):
                        misses.append(f"{one.name} seed {seed}: {bug or 'right'}\n{str(report)[:600]}")
        print(f"{family}, {name:24s}", dict(total), flush=True)
        found[name] = {**total, "missed": misses}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m studies.gradient_checking")
    parser.add_argument("--quick", action="store_true", help="a smoke test: its figures mean little")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=2000, help="below 100 the checker was developed")
    parser.add_argument("--sizes", default="100,1000,100000")
    parser.add_argument("--structures", type=int, default=500, help="of random correct nets")
    parser.add_argument("--cases", type=int, default=20, help="of each structure")
    parser.add_argument("--pieces", default="bugs,nets,correct,hard")
    parser.add_argument("--bugs", default=",".join(BUGS), help="which of them, by name")
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.sizes, arguments.structures = 1, "100", 4
    versions = {"python": platform.python_version(), "jax": jax.__version__}
    versions["torch"] = torch.__version__ if torch is not None else "absent"
    sizes = [int(size) for size in arguments.sizes.split(",")]
    first = arguments.first_seed

    def keep(piece: str, found: dict[str, Any]) -> None:
        """Piece by piece, into what is there: a long campaign may be interrupted, or be two processes."""
        path = arguments.json
        path.parent.mkdir(parents=True, exist_ok=True)
        results = json.loads(path.read_text()) if path.exists() else {}
        results["versions"] = results.get("versions", {}) | versions
        results[piece] = results.get(piece, {}) | found if piece == "bugs" else found
        path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")

    if "bugs" in arguments.pieces:
        for name in arguments.bugs.split(","):
            keep("bugs", {name: measure_bug(name, sizes, range(first, first + arguments.seeds))})
    if "nets" in arguments.pieces:
        keep("nets", measure_nets(range(first, first + arguments.seeds)))
    if "hard" in arguments.pieces:
        hard: dict[str, Any] = {}
        for family, (_, own) in hard_cases.FAMILIES.items():
            seeds = range(first, first + arguments.seeds)
            hard[family] = measure_hard(family, seeds, own[:1] if arguments.quick else own)
            keep("hard", {"versions": versions, "families": hard})
    if "correct" in arguments.pieces:
        for piece in correct(range(first, first + arguments.structures), arguments.cases):
            keep("correct", piece)


if __name__ == "__main__":
    main()
