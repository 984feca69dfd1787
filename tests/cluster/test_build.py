"""Building once: nothing half-built under a final name, nobody builds what another builds."""

import json
import shutil
import stat
import sys
import threading
import types

import pytest

from tests.cluster import build as module
from tests.cluster.build import PINS, build, cache, pinned, release_source
from tests.cluster.processes import ClusterFailed
from tests.cluster.programs import CHARTS, FILES, KUBERNETES_VERSION, PROGRAMS, RELEASES, USUAL

pytestmark = pytest.mark.slow

ALL = sum(len(PROGRAMS[name]) for name in USUAL)

_GO = """#!{python} -SE
import json, pathlib, sys, time
pathlib.Path({calls!r}).open("a").write(" ".join(sys.argv[1:]) + "\\n")
time.sleep({pause})
if {fails!r} in sys.argv[-1]:
    sys.exit("no such\\npackage")
if sys.argv[1] == "build":
    target = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("built")
else:
    print(json.dumps({{"Dir": {source!r}}}))
"""


@pytest.fixture
def toolchain(tmp_path, monkeypatch):
    """Put a stand-in in the place of Go: ``toolchain(fails="...")``; ``.calls`` is what it did."""
    source = tmp_path / "source"
    for _, paths in FILES.values():
        for path in paths:
            target = source / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("kind: Stage")
    for _, chart in CHARTS.values():
        (source / chart / "templates").mkdir(parents=True)
        (source / chart / "templates" / "one.yaml").write_text("kind: {{ .kind }}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    calls = tmp_path / "calls"
    calls.touch()

    def install(fails="nothing", pause=0.0):
        go = tmp_path / "go"
        go.write_text(
            _GO.format(
                python=sys.executable, calls=str(calls), pause=pause, fails=fails,
                source=str(source),
            )
        )  # fmt: skip
        go.chmod(stat.S_IRWXU)
        found = types.SimpleNamespace(go=go)
        monkeypatch.setattr(module, "find_client", lambda *_: found)

    install.calls = lambda: [line for line in calls.read_text().splitlines() if "build" in line]
    install()
    return install


@pytest.fixture
def pins(tmp_path, monkeypatch):
    """A copy of the pins that may be changed."""
    copy = tmp_path / "binaries"
    shutil.copytree(PINS, copy)
    monkeypatch.setattr(module, "PINS", copy)
    return copy


def test_every_program_and_every_file_is_there(toolchain):
    built = build(lambda line: None, PROGRAMS)
    for one in PROGRAMS:
        for name in PROGRAMS[one]:
            assert built.program(name).read_text() == "built"
    for name, (_, paths) in FILES.items():
        assert built.objects(name) == [{"kind": "Stage"}] * len(paths)
    for name in CHARTS:
        assert (built.chart(name) / "templates/one.yaml").read_text() == "kind: {{ .kind }}"


def test_what_was_built_is_not_built_again(toolchain):
    said = []
    first = build(said.append)
    before = len(toolchain.calls())
    assert build(said.append) == first
    assert len(toolchain.calls()) == before == ALL
    assert "which takes minutes" in said[0]


def test_what_a_real_node_needs_is_built_on_request(toolchain):
    built = build(lambda line: None)
    assert not built.program("kubelet").exists()
    built = build(lambda line: None, PROGRAMS)
    assert built.program("kubelet").is_file()
    assert len(toolchain.calls()) == sum(map(len, PROGRAMS.values()))


def test_one_other_pin_builds_one_module_again(toolchain, pins):
    build(lambda line: None)
    (pins / "kwok" / "go.sum").write_text("other")
    before = len(toolchain.calls())
    build(lambda line: None)
    assert len(toolchain.calls()) == before + len(PROGRAMS["kwok"])


def test_a_build_that_fails_leaves_nothing_and_says_why(toolchain):
    toolchain(fails="kube-scheduler")
    with pytest.raises(ClusterFailed, match="go build in kubernetes failed: no such package"):
        build(lambda line: None)
    assert not (cache() / pinned("kubernetes")).exists()
    assert not list(cache().glob(".*")), "something half-built was left"
    toolchain()
    assert build(lambda line: None).program("kube-scheduler").is_file()


def test_what_a_killed_build_left_is_removed(toolchain):
    left = cache() / f".{pinned('kwok')}.abc"
    left.mkdir(parents=True)
    build(lambda line: None)
    assert not left.exists()


def test_two_that_need_it_build_it_once(toolchain):
    toolchain(pause=0.05)
    said, built = [], []
    threads = [threading.Thread(target=lambda: built.append(build(said.append))) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60.0)
    assert len(toolchain.calls()) == ALL
    assert len(built) == 2
    assert any("waiting for it" in line for line in said)


@pytest.mark.parametrize("file", ["go.mod", "go.sum", "main.go"])
def test_another_source_is_another_directory(pins, file):
    before = {name: pinned(name) for name in PROGRAMS}
    changed = pins / "kserve" / file
    changed.write_text(changed.read_text() + "\n")
    after = {name: pinned(name) for name in PROGRAMS}
    assert [name for name in PROGRAMS if before[name] != after[name]] == ["kserve"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_module_is_pinned_with_its_sums(name):
    directory = module.pins(name)
    assert (directory / "go.sum").stat().st_size > 0
    text = (directory / "go.mod").read_text()
    own = text.split()[1]
    for package in PROGRAMS.get(name, {}).values():
        assert package.startswith(own) or package in text


def test_all_of_kubernetes_is_of_one_release():
    releases = set()
    for name in ("kubernetes", "node"):
        lines = (PINS / name / "go.mod").read_text().splitlines()
        (release,) = [
            line.split()[-1] for line in lines if line.startswith("require k8s.io/kubernetes")
        ]
        replaced = {line.split()[-1] for line in lines if "=>" in line}
        assert replaced == {release.replace("v1.", "v0.")}
        releases.add(release)
    assert releases == {KUBERNETES_VERSION}, "what the programs are told is what they are"
    assert json.dumps(PROGRAMS).count("k8s.io/kubernetes") == 7


def test_a_release_with_another_checksum_is_not_built(toolchain, monkeypatch):
    """The checksum covers the release's own ``go.sum``, and so everything that it is built of."""
    said = json.dumps({"Sum": "h1:other", "Dir": "/nowhere"})
    monkeypatch.setattr(module, "_go", lambda *words: said)
    with pytest.raises(ClusterFailed, match="has the checksum h1:other, not its own"):
        release_source(RELEASES["kind"])


def test_kserve_is_built_with_what_its_own_module_replaces():
    """What a dependency's go.mod replaces counts for nothing, so it is said again in ours."""
    lines = (PINS / "kserve" / "go.mod").read_text().splitlines()
    replaced = {line.split()[0]: line.split()[-1] for line in lines if "=>" in line}
    assert replaced["sigs.k8s.io/controller-runtime"].startswith("v0.22.")
    assert {replaced[f"k8s.io/{one}"].rpartition(".")[0] for one in ("api", "client-go")} == {
        "v0.34"
    }
