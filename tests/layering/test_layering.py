"""The rules of the folders: who may include whom, sizes, words, formatting, no stray files."""

import ast
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOP_LEVEL = {"CMakeLists.txt", "services", "protos", "common", "kernels", "deploy", "k8s", "tests", "loadtest", "README.md"}
# A folder may include only these (and itself).
ALLOWED = {
    "protos": set(),
    "kernels": set(),
    "common": {"protos", "kernels"},
    "services": {"protos", "kernels", "common"},
    "tests": {"protos", "kernels", "common", "services"},
    "loadtest": {"protos", "kernels", "common", "services"},
}
GRPC_FREE = ["kernels", "common/model", "common/tokenizer", "common/activation", "common/collective", "common/base"]
TESTS_OF_LOAD_TESTS = {pathlib.Path("tests/robustness/test_load.py"), pathlib.Path("tests/autoscaling/test_autoscaling.py")}
MAX_LINES = 500


def tracked(*endings: str) -> list[pathlib.Path]:
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return [pathlib.Path(n) for n in names if n.endswith(endings) and (ROOT / n).exists()]


def includes(path: pathlib.Path) -> list[str]:
    return re.findall(r'^#include [<"]([^">]+)[">]', (ROOT / path).read_text(), re.MULTILINE)


def test_top_level_is_fixed() -> None:
    names = {path.parts[0] for path in tracked("")}
    assert {n for n in names if not n.startswith(".")} <= TOP_LEVEL


def test_folders_include_only_what_stands_left_of_them() -> None:
    sources = tracked(".h", ".cc", ".cu", ".cuh")
    wrong = []
    for path in sources:
        own = path.parts[0]
        for name in includes(path):
            folder = name.split("/")[0]
            if folder in ALLOWED and folder != own and folder not in ALLOWED[own]:
                wrong.append(f"{path} includes {name}")
    assert sources and not wrong, "\n".join(wrong)


def imported(path: pathlib.Path) -> set[str]:
    """The modules that a Python file names, wherever in it."""
    nodes = list(ast.walk(ast.parse((ROOT / path).read_text())))
    named = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return {name.split(".")[0] for name in named + [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]}


def test_load_tests_and_tests_meet_in_support() -> None:
    """Load tests use of tests/ its support alone, only what tests them uses load tests, and support uses neither."""
    scripts = tracked(".py")
    load = {path.stem for path in scripts if path.parts[0] == "loadtest"}
    support = {path.stem for path in scripts if path.parts[:2] == ("tests", "support")}
    others = {path.stem for path in scripts if path.parts[0] == "tests"} - support - load
    assert load and support and others
    wrong = []
    for path in scripts:
        names = imported(path)
        if path.parts[0] == "loadtest":
            wrong += [f"{path} imports {name} of tests" for name in names & others]
        elif path.parts[:2] == ("tests", "support"):
            wrong += [f"{path} imports {name}" for name in names & (load | others)]
        elif path.parts[0] == "tests" and path not in TESTS_OF_LOAD_TESTS:
            wrong += [f"{path} imports {name} of loadtest" for name in names & load]
    assert not wrong, "\n".join(wrong)


def test_services_do_not_include_each_other() -> None:
    wrong = [
        f"{path} includes {name}"
        for path in tracked(".h", ".cc")
        for name in includes(path)
        if path.parts[0] == "services" and name.startswith("services/") and name.split("/")[1] != path.parts[1]
    ]
    assert not wrong, "\n".join(wrong)


def test_kernels_depend_on_absl_only_and_cores_know_no_grpc() -> None:
    wrong = []
    for path in tracked(".h", ".cc", ".cu"):
        text = str(path)
        if any(text.startswith(f"{folder}/") for folder in GRPC_FREE):
            wrong += [f"{path} includes {n}" for n in includes(path) if n.startswith("grpc") or n.endswith(".grpc.pb.h")]
        if text.startswith("kernels/"):
            wrong += [f"{path} includes {n}" for n in includes(path) if n.startswith(("google/", "nlohmann/", "sextant/", "spdlog"))]
    assert not wrong, "\n".join(wrong)


def test_files_are_small_and_say_what_they_are_for() -> None:
    wrong = []
    for path in tracked(".h", ".cc", ".cu", ".cuh", ".py", ".proto"):
        lines = (ROOT / path).read_text().splitlines()
        if len(lines) > MAX_LINES:
            wrong.append(f"{path} has {len(lines)} lines (at most {MAX_LINES})")
        first = next((line for line in lines if line and not line.startswith("#!")), "")
        if lines and not first.startswith(("//", '"""', "#", "/*")):
            wrong.append(f"{path} does not open with a sentence on what it is responsible for")
    assert not wrong, "\n".join(wrong)


def test_no_unfinished_work_is_marked() -> None:
    word = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    own = pathlib.Path(__file__).relative_to(ROOT)
    wrong = [str(p) for p in tracked(".h", ".cc", ".cu", ".py", ".proto", ".txt", ".cmake") if p != own and word.search((ROOT / p).read_text())]
    assert not wrong, wrong


def test_every_top_level_folder_has_a_readme() -> None:
    folders = {p.parts[0] for p in tracked("") if len(p.parts) > 1 and not p.parts[0].startswith(".")}
    missing = [f for f in sorted(folders) if not (ROOT / f / "README.md").exists()]
    assert not missing, missing


def test_formatting() -> None:
    sources = [str(p) for p in tracked(".h", ".cc", ".cu")]
    try:
        check = subprocess.run(["clang-format", "--dry-run", "-Werror", *sources], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("clang-format is not installed")
    files = sorted({line.split(":")[0] for line in check.stderr.splitlines() if "error:" in line})
    assert check.returncode == 0, "run clang-format -i on: " + " ".join(files)
