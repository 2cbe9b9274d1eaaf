"""What holds for the project as a whole: importing does nothing, dependencies point one way, names and pins agree."""

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "jaxopt_nn"

# What each part of the package may import of the others. A part is a module or a package right below jaxopt_nn; within
# itself it may import what it likes. `jaxopt_nn/__init__.py` may import every part, and no part may import it.
BASE = {"types", "trees", "_arguments", "_dtypes", "_jaxprs", "_ops", "_safetensors", "_scale"}
LEAVES = {
    "augment", "checking", "data", "initializers", "layers", "losses", "metrics", "optimizers", "penalties",
    "schedules",
}  # fmt: skip
ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "_safetensors": {"types"},
    "trees": {"types", "_safetensors"},
    "_arguments": {"types"},
    "_dtypes": set(),
    "_jaxprs": {"_ops"},
    "_ops": {"types"},
    "_scale": {"types"},
    **{leaf: BASE for leaf in LEAVES},
    "layers": BASE | {"initializers"},
    "optimizers": BASE | {"schedules"},
    "training": BASE | LEAVES,
    "sweeps": BASE | {"optimizers", "plots", "training"},
    "monitor": BASE | {"training"},
    "plots": BASE | {"metrics", "monitor", "training"},
    "estimators": BASE | LEAVES | {"training"},
    "interop": BASE | {"layers", "penalties"},
    "__main__": {"sweeps", "training"},
}


def imported_parts(file: Path, package: Path) -> Iterator[str]:
    """The parts of ``package`` that ``file`` imports, anywhere in it, absolutely or relatively; "" is its __init__."""
    inside = (package.name, *file.relative_to(package).with_suffix("").parts)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) - node.level] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            targets = [(*base, alias.name) for alias in node.names]
        else:
            continue
        for target in targets:
            if target[0] == package.name:
                part = target[1] if len(target) > 1 else ""
                is_part = (package / part).is_dir() or (package / f"{part}.py").is_file()
                yield part if is_part else ""


def wrong_imports(package: Path, allowed: dict[str, set[str]]) -> list[str]:
    """Each import in ``package`` that ``allowed`` does not allow, as a line to read."""
    wrong: list[str] = []
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(package)
        part = name.parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        if part not in allowed:
            wrong.append(f"{name}: {part} has no row in the table of imports")
            continue
        for target in sorted(set(imported_parts(file, package)) - {part} - allowed[part]):
            wrong.append(f"{name}: {part} may not import {target or 'the package itself'}")
    return wrong


def module_names() -> list[str]:
    """Every module of the package, but its own ``__init__``."""
    files = (path.relative_to(ROOT).with_suffix("") for path in sorted(PACKAGE.rglob("*.py")))
    names = (".".join(file.parts).removesuffix(".__init__") for file in files)
    return [name for name in names if name != "jaxopt_nn"]


def public_modules() -> list[ModuleType]:
    """The modules that a person imports: those right below the package."""
    names = (name for name in module_names() if name.count(".") == 1 and "._" not in name)
    return [importlib.import_module(name) for name in names]


def is_ours(value: object) -> bool:
    return str(getattr(value, "__module__", "")).startswith("jaxopt_nn.")


def pins(name: str) -> dict[str, str]:
    """The versions that constraints/NAME.txt pins, by normalized package name."""
    lines = (ROOT / "constraints" / f"{name}.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), f"{name}.txt: not plain name==version lines"
    return {normalized(package): version for package, version in (line.split("==") for line in lines)}


def requirements(*extras: str) -> dict[str, str]:
    """The lower bounds in pyproject.toml, of the core and of ``extras``, by normalized package name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
    matches = [re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?(?:>=([\d.]+))?", line) for line in lines]
    assert all(matches), f"not name>=version lines: {lines}"
    return {normalized(match[1]): match[2] for match in matches if match and match[1] != project["name"]}


def normalized(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def test_import_does_nothing() -> None:
    script = """
import json, sys
import jax, jax._src.xla_bridge, optax
settings = {name: repr(value) for name, value in jax.config.values.items()}
import jaxopt_nn
print(json.dumps({
    "backend": jax._src.xla_bridge.backends_are_initialized(),
    "settings": [name for name, value in jax.config.values.items() if repr(value) != settings.get(name)],
    "optional": sorted(
        {"sklearn", "matplotlib", "tqdm", "pandas", "optuna", "flax", "orbax", "pytest"} & set(sys.modules)
    ),
    "modules": sorted(name for name in sys.modules if name.startswith("jaxopt_nn.")),
}))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)  # fails if the import printed anything
    assert done.stderr == ""
    assert (found["backend"], found["settings"], found["optional"]) == (False, [], [])
    assert {module.__name__ for module in public_modules()} <= set(found["modules"])


def lines_about_the_machine(package: Path) -> list[str]:
    """Each line of ``package`` outside of ``_ops`` that names a backend or what steers its compiler."""
    words = re.compile(r"optimization_barrier|custom_vmap|default_backend|\bXLA|\bCPU|\bcpu\b")
    return [
        f"{name}:{number}"
        for file in sorted(package.rglob("*.py"))
        if (name := file.relative_to(package)).parts[0] != "_ops"
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if words.search(line)
    ]


def test_only_ops_knows_the_machine(tmp_path: Path) -> None:
    assert lines_about_the_machine(PACKAGE) == []
    planted = {
        "layers/dense.py": "y = lax.optimization_barrier(y)",
        "losses.py": "# XLA fuses this",
        "metrics.py": 'if jax.default_backend() == "gpu":',
        "trees.py": "from jax.custom_batching import custom_vmap",
        "_ops/plain.py": "# on a CPU",
        "plots.py": "# two CPUs",
        "types.py": 'device = jax.devices("cpu")[0]',
    }
    for name, line in planted.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"import jax\n{line}\n")
    assert lines_about_the_machine(tmp_path) == sorted(f"{name}:2" for name in planted if "_ops" not in name)


def test_the_machine_takes_few_lines() -> None:
    files = sorted((PACKAGE / "_ops").rglob("*.py"))
    assert sum(len(file.read_text().splitlines()) for file in files) <= 900


def test_dependencies_point_one_way() -> None:
    assert wrong_imports(PACKAGE, ALLOWED) == []


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("types.py", "from fake import trees", "types may not import trees"),
        ("losses.py", "from fake.layers import dense", "losses may not import layers"),
        ("losses.py", "import fake.training.step as step", "losses may not import training"),
        ("losses.py", "def f():\n    from .training import step", "losses may not import training"),
        ("layers/dense.py", "from ..optimizers import adam", "layers may not import optimizers"),
        ("layers/dense.py", "from .. import losses", "layers may not import losses"),
        ("layers/__init__.py", "from ..losses import mse", "layers may not import losses"),
        ("layers/dense.py", "if TYPE_CHECKING:\n    import fake.training", "layers may not import training"),
        ("training/step.py", "from fake import __version__", "training may not import the package itself"),
        ("losses.py", "import fake", "losses may not import the package itself"),
        ("new.py", "import jax", "new has no row in the table of imports"),
    ],
)
def test_wrong_imports_are_found(tmp_path: Path, file: str, line: str, complaint: str) -> None:
    package = tmp_path / "fake"
    good = {
        "__init__.py": "from fake import layers, losses, training, types",
        "types.py": "import jax",
        "trees.py": "from fake.types import Batch",
        "losses.py": "import optax\nfrom fake import trees\nfrom .types import Batch",
        "optimizers.py": "from fake import types",
        "layers/__init__.py": "from .dense import dense\nfrom fake.layers.dense import other",
        "layers/dense.py": "from fake import trees\nfrom ..types import Layer\nfrom . import dense",
        "training/step.py": "from fake import layers, losses\nfrom fake.types import Batch",
    }
    for name, text in good.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    assert wrong_imports(package, ALLOWED) == []
    with (package / file).open("a") as stream:
        stream.write(f"\n{line}\n")
    assert wrong_imports(package, ALLOWED) == [f"{file}: {complaint}"]


@pytest.mark.parametrize("name", module_names())
def test_public_names_exist_and_say_what_they_are(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, "no docstring"
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        value = getattr(module, public)
        if callable(value) and is_ours(value) and "._" not in name:
            # A NamedTuple without a docstring is given one: its signature.
            assert value.__doc__ and not value.__doc__.startswith(f"{public}("), f"{public}: no docstring"


def test_each_public_name_has_one_path() -> None:
    paths: dict[int, list[str]] = {}
    for module in public_modules():
        for name in module.__all__:
            value = getattr(module, name)
            if is_ours(value):
                paths.setdefault(id(value), []).append(f"{module.__name__}.{name}")
    assert [several for several in paths.values() if len(several) > 1] == []


def test_lowest_pins_are_the_lower_bounds() -> None:
    assert pins("lowest") == requirements("checkpoint", "data", "images", "plots", "progress", "sweep", "tensorboard")


def test_pins_cover_what_is_required_and_agree() -> None:
    development, older, peers = pins("dev"), pins("python3.11"), pins("peers")
    wanted = requirements("checkpoint", "data", "plots", "progress", "tensorboard", "test", "docs", "dev")
    assert set(wanted) <= set(development) & set(older)
    assert set(requirements("peers")) <= set(peers)
    assert {name: peers[name] for name in peers if name in older} == {
        name: older[name] for name in peers if name in older
    }


def test_the_supported_pythons_are_named_alike() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pythons = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    assert project["requires-python"] == f">={pythons[0]}"
    assert f"NEWEST := {' '.join(reversed(pythons))}\n" in (ROOT / "Makefile").read_text()
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert f"Python {', '.join(pythons[:-1])} or {pythons[-1]} " in text
    assert {path.name for path in (ROOT / "constraints").iterdir()} == set(re.findall(r"`([\w.]+\.txt)`", text))


def test_each_extra_is_used() -> None:
    """What an extra installs is imported, or looked for by name, somewhere in the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    modules = {"dm-haiku": "haiku", "orbax-checkpoint": "orbax", "scikit-learn": "sklearn", "pillow": "PIL"}
    text = "\n".join(file.read_text() for file in PACKAGE.rglob("*.py"))
    used = {name for names in re.findall(r'(?:import|from) (\w+)|"(\w+)[.\w]*"', text) for name in names}
    for extra in set(project["optional-dependencies"]) - {"peers", "test", "docs", "dev"}:
        packages = [re.split(r"[><=]", line)[0] for line in project["optional-dependencies"][extra]]
        assert {modules.get(package, package) for package in packages} <= used, f"{extra}: not used"


def test_no_file_names_an_index() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    files = [ROOT / line for line in listed.stdout.splitlines()] or list(PACKAGE.rglob("*.py"))
    address = re.compile(
        r"(index-url|find-links|trusted-host|registry|proxy)\W{1,6}(https?|file):|:/{2}\S+/simple\b", re.I
    )
    for wrong in ("--extra-index-url {}x.org/", "registry={}x.org", "from {}x.org/simple/"):
        assert address.search(wrong.format("https://"))
    for file in files:
        if file.is_file():
            found = address.search(file.read_bytes().decode("utf-8", "ignore"))
            assert not found, f"{file.relative_to(ROOT)}: {found}"
