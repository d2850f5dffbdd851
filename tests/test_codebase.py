"""The repository's own rules: stub, symbols, versions, documentation, file heads, examples."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import abcdeep_core as ab
from abcdeep_core import _core

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("cpp", "python", "tests", "bench", "docs", "third_party", ".ci")
OBJECTS = sorted(
    path
    for path in ROOT.glob("build/*-*-*/CMakeFiles/*_*.dir/cpp/**/*.cpp.o")
    if path.match("CMakeFiles/kernels_*.dir/cpp/kernels/*")
    or path.match("CMakeFiles/linalg_*.dir/cpp/linalg.cpp.o")
)

# Sources and the comment or docstring their first line has to be.
HEADS = {
    ".cpp": "// ",
    ".hpp": "// ",
    ".cu": "// ",
    ".py": '"""',
    ".toml": "[",
    ".txt": "# ",
    ".md": "# ",
}
CODE_SUFFIXES = (".cpp", ".hpp", ".cu", ".py")
LINES_OF_CODE = 450  # DESIGN: about 400

# Paths of one machine, package indexes, and reminders that belong in an issue.
FORBIDDEN = re.compile(
    r"(?<![\w.])/(work|home|root|Users|tmp)/"
    r"|\b(index-url|pypi\.org|pythonhosted)\b"
    r"|\b(TO" + r"DO|FIX" + r"ME|XXX)\b"
)


def sources() -> list[Path]:
    """Return every text file of the repository that a person wrote."""
    found = [path for path in ROOT.iterdir() if path.is_file() and path.name != "LICENSE"]
    for folder in FOLDERS:
        found += (path for path in (ROOT / folder).rglob("*") if path.is_file())
    skipped = re.compile(r"/(__pycache__|_build|\.\w+_cache)/")
    return sorted(
        path
        for path in found
        if not skipped.search(path.as_posix())
        and path.suffix in {*HEADS, "", ".pyi", ".cff", ".json", ".css"}
    )


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


SOURCES = sources()
CODE = [path for path in SOURCES if path.suffix in CODE_SUFFIXES and path.parent != ROOT]


def test_stub_is_fresh():
    stubgen = pytest.importorskip("nanobind.stubgen", reason="nanobind is a build requirement")
    stub = stubgen.StubGen(_core)
    stub.put(_core)
    committed = ROOT / "python" / "abcdeep_core" / "_core.pyi"
    assert committed.read_text() == stub.get(), "run `make stub`"


@pytest.mark.skipif(not OBJECTS, reason="no object files under build/: run `make dev`")
@pytest.mark.skipif(not shutil.which("nm"), reason="needs nm (binutils)")
@pytest.mark.parametrize("path", OBJECTS, ids=relative)
def test_objects_of_one_instruction_set_have_no_weak_symbols(path):
    # The linker keeps one copy of a weak function for all instruction sets: that of the widest one
    # may then run on a machine that does not have it.
    if not (ROOT / "cpp" / str(path).rpartition("/cpp/")[2].removesuffix(".o")).exists():
        pytest.skip("left over from a source that is gone")
    allowed = {"DW.ref.__gxx_personality_v0"}
    lines = subprocess.run(
        ["nm", "--defined-only", "--format=posix", path], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    weak = {line.split()[0] for line in lines if line.split()[1] in "WwVvuU"} - allowed
    if match := re.search(r"linalg_(\w+)\.dir", str(path)):
        # Eigen's templates are weak; the build gives each instruction set a namespace of its own.
        namespace = f"Eigen_{match[1]}"
        own = f"{len(namespace)}{namespace}"
        weak = {name for name in weak if own not in name}
        assert not any("5Eigen" in line for line in lines)
    assert not weak


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    released = re.search(r"^## \[([\w.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released is not None
    assert project["version"] == ab.__version__ == released[1]


def test_type_marker_is_there():
    assert (ROOT / "python" / "abcdeep_core" / "py.typed").exists()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_file_opens_with_what_it_is(path):
    lines = path.read_text().splitlines()
    if path.name in ("py.typed", "_core.pyi"):
        return
    if lines[0].startswith("#!"):
        lines = lines[1:]
    head = HEADS.get(path.suffix, "# ")
    assert lines[0].startswith(head)
    assert path.suffix == ".toml" or len(lines[0].strip('/#"[] ')) >= 4


@pytest.mark.parametrize("path", CODE, ids=relative)
def test_file_is_short(path):
    assert len(path.read_text().splitlines()) <= LINES_OF_CODE


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_file_names_no_machine_and_holds_no_reminder(path):
    if path == Path(__file__):
        return
    found = [line for line in path.read_text().splitlines() if FORBIDDEN.search(line)]
    assert not found


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_text_is_tidy(path):
    text = path.read_text()
    assert not text or text.endswith("\n")
    assert "\r" not in text
    assert path.name == "Makefile" or "\t" not in text
    assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_cpp_reads_the_environment_in_two_files_and_prints_nowhere():
    for path in CODE:
        if not path.is_relative_to(ROOT / "cpp"):
            continue
        text = path.read_text()
        assert "getenv" not in text or path.name in ("dispatch.cpp", "parallel.cpp"), path
        assert not re.search(r"\b(printf|std::cout|std::cerr|abort|exit)\b", text), path


def test_only_linalg_includes_eigen():
    cpp = [path for path in CODE if path.is_relative_to(ROOT / "cpp")]
    users = [path.name for path in cpp if "<Eigen" in path.read_text()]
    assert users == ["linalg.cpp"]


def public_objects() -> dict[str, object]:
    return {name: getattr(ab, name) for name in ab.__all__ if name != "__version__"}


def test_all_lists_every_public_name_once_and_sorted():
    assert len(set(ab.__all__)) == len(ab.__all__)
    assert all(hasattr(ab, name) for name in ab.__all__)


@pytest.mark.parametrize("name", public_objects())
def test_public_name_has_a_docstring_with_an_example(name):
    thing = public_objects()[name]
    text = inspect.getdoc(thing)
    assert text
    if inspect.isfunction(thing) or inspect.isclass(thing):
        assert "Examples\n--------\n" in text
        assert ">>> " in text
    if inspect.isfunction(thing) and inspect.signature(thing).parameters:
        assert "Parameters\n----------\n" in text
        assert "Returns\n-------\n" in text
        assert "Raises\n------\n" in text
        # A parameter may be described by another public function that the text refers to.
        referred = [public_objects()[other] for other in public_objects() if f"`{other}`" in text]
        documented = " ".join([text, *(inspect.getdoc(other) or "" for other in referred)])
        for parameter in inspect.signature(thing).parameters:
            assert re.search(rf"\b{parameter}\b", documented), parameter


@pytest.mark.parametrize("name", public_objects())
def test_public_name_is_in_the_api_reference(name):
    assert re.search(rf"\b{re.escape(name)}\b", (ROOT / "docs" / "api.md").read_text())


def modules() -> list[str]:
    walked = pkgutil.walk_packages(ab.__path__, "abcdeep_core.")
    skipped = ("abcdeep_core._core", "abcdeep_core.__main__")
    return ["abcdeep_core", *(info.name for info in walked if info.name not in skipped)]


@pytest.mark.parametrize("name", modules())
def test_docstring_examples_run(name):
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        if "expected the extra" not in str(error):
            raise
        pytest.skip(str(error))
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(?:python|pycon)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_examples_of_a_page_run(path, tmp_path, monkeypatch):
    # The blocks of a page run one after another in one namespace; an example may write files.
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    text = path.read_text()
    for match in BLOCK.finditer(text):
        code, line = match[1], text.count("\n", 0, match.start(1))
        if ">>> " in code:
            test = doctest.DocTestParser().get_doctest(code, names, relative(path), None, line)
            runner.run(test, clear_globs=False)
            names.update(test.globs)
        else:
            exec(compile("\n" * line + code, path, "exec"), names)
    assert runner.failures == 0


def test_readme_names_the_two_commands():
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text
    assert "make test" in text
