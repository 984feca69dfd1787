"""Bundles that somebody prepared: each is refused in one sentence, and nothing outside is read.

Each case starts from a small valid bundle, signed, and is told what its maker could do. An audit
hook sees every file that Python opens and every connection; what the C++ of ONNX could open is a
pipe that nobody writes to, which would hang.
"""

import ast
import hashlib
import json
import os
import pickle
import stat
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import dwcp_ml
from dwcp_ml.contract.bundle import MANIFEST_NAME, ONNX_NAME, SIGNATURE_NAME
from dwcp_ml.contract.errors import BundleRefused
from dwcp_ml.contract.models import RELIABILITY
from dwcp_ml.export.bundle import seal_bundle, staging
from dwcp_ml.export.keys import make_key_pair
from dwcp_ml.export.signing import sign_bundle
from dwcp_ml.export.verify import open_bundle

PACKAGE = Path(dwcp_ml.__file__).parent
EVENTS: list[tuple[str, str]] = []
LISTENING = [False]


def _listen(event, arguments):
    if not LISTENING[0]:
        return
    if event == "open" and not isinstance(arguments[0], int):  # a number is a file already open
        EVENTS.append((event, os.fsdecode(arguments[0])))
    elif event.startswith(("socket.", "pickle.", "exec", "os.exec", "subprocess.")):
        EVENTS.append((event, str(arguments)))


sys.addaudithook(_listen)


def small_model(nodes=(), initializers=(), opsets=()):
    """A graph that keeps the reliability model's signature: the mean of a row, and a threshold."""
    own = [
        helper.make_node("ReduceMean", ["features", "axes"], ["anomaly_score"], keepdims=0),
        helper.make_node("Greater", ["anomaly_score", "limit"], ["is_anomaly"]),
    ]
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 6])]
    outputs = [
        helper.make_tensor_value_info("anomaly_score", TensorProto.FLOAT, ["batch"]),
        helper.make_tensor_value_info("is_anomaly", TensorProto.BOOL, ["batch"]),
    ]
    weights = [
        numpy_helper.from_array(np.array([1], dtype=np.int64), "axes"),
        numpy_helper.from_array(np.array(0.5, dtype=np.float32), "limit"),
    ]
    graph = helper.make_graph(
        [*own, *nodes], "small", inputs, outputs, [*weights, *initializers]
    )  # fmt: skip
    return helper.make_model(
        graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18), *opsets]
    )


def seal(destination, report, model=None):
    with staging(destination) as directory:
        (directory / ONNX_NAME).write_bytes((model or small_model()).SerializeToString())
        (directory / "report.md").write_text("# fine\n")
        (directory / "saved_model" / "1").mkdir(parents=True)
        (directory / "saved_model" / "1" / "saved_model.pb").write_bytes(b"graph")
        return seal_bundle(directory, destination, RELIABILITY, report)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return make_key_pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def outside(tmp_path):
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "secret.txt").write_text("secret")
    os.mkfifo(directory / "pipe")
    return directory


@pytest.fixture
def bundle(tmp_path, report, keys):
    path = seal(tmp_path / "models" / "reliability_detector" / "7", report)
    sign_bundle(path, keys[0])
    return path


def listened(function):
    """Return what ``function`` does, and the files opened and connections made meanwhile."""
    EVENTS.clear()
    LISTENING[0] = True
    try:
        return function(), list(EVENTS)
    finally:
        LISTENING[0] = False


def refuse(path, match, **options):
    """Assert the refusal, its form, and that nothing but parts of the bundle were opened."""
    with pytest.raises(BundleRefused, match=match) as caught:
        listened(lambda: open_bundle(path, **options))
    sentence = str(caught.value).removeprefix(str(path))
    assert sentence.endswith(".")
    assert sentence.isprintable()
    assert len(sentence) < 500
    scratch = os.path.join(tempfile.gettempdir(), "dwcp-ml-")  # noqa: PTH118
    for event, name in EVENTS:
        assert event == "open", (event, name)
        inside = name == str(path) or ("/" not in name and name != "..")
        assert inside or name.startswith(scratch) or name == str(options.get("public_key")), name


def manifest_of(path):
    return json.loads((path / MANIFEST_NAME).read_text())


def rewrite(path, **changes):
    (path / MANIFEST_NAME).write_text(json.dumps(manifest_of(path) | changes))


def reseal(path):
    """Write the records of all files again, as somebody would who knows how."""
    files = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_file() and name not in (MANIFEST_NAME, SIGNATURE_NAME):
            content = file.read_bytes()
            record = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
            files[name] = record
    rewrite(path, files=files)


def replace_graph(path, model):
    content = model if isinstance(model, bytes) else model.SerializeToString()
    (path / ONNX_NAME).write_bytes(content)
    reseal(path)


@pytest.fixture(autouse=True)
def imported(bundle, keys):
    """Import what verification imports, so that the hook sees the bundle's files alone."""
    assert open_bundle(bundle, public_key=keys[1]).signature == "valid"


def test_a_good_bundle_is_read_once_and_by_nobody_else(bundle, keys):
    opened, events = listened(lambda: open_bundle(bundle, public_key=keys[1]))
    names = [name for event, name in events if event == "open"]
    assert {event for event, _ in events} == {"open"}
    for file in bundle.rglob("*"):
        if file.is_file() and file.name != SIGNATURE_NAME:
            assert names.count(file.name) == 1
    assert opened.onnx == small_model().SerializeToString()


# --- what kind of files -----------------------------------------------------------------------


def symlink_file(path, outside):
    (path / "report.md").unlink()
    (path / "report.md").symlink_to(outside / "secret.txt")


def symlink_directory(path, outside):
    (path / "saved_model").rename(outside / "saved_model")
    (path / "saved_model").symlink_to(outside / "saved_model")


def dangling_signature(path, outside):
    (path / SIGNATURE_NAME).unlink()
    (path / SIGNATURE_NAME).symlink_to(outside / "nowhere")


def hard_link(path, outside):
    (path / "report.md").unlink()
    (path / "report.md").hardlink_to(outside / "secret.txt")


def pipe(path, outside):
    (path / ONNX_NAME).unlink()
    os.mkfifo(path / ONNX_NAME)


def pipe_for_signature(path, outside):
    (path / SIGNATURE_NAME).unlink()
    os.mkfifo(path / SIGNATURE_NAME)


def socket_file(path, outside):
    os.mknod(path / "socket", stat.S_IFSOCK | 0o600)


def device(path, outside):
    try:
        os.mknod(path / "zero", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes devices")


def oversize(path, outside):
    (path / "report.md").write_bytes(b"x" * 50_000_001)


def sparse(path, outside):
    with (path / "report.md").open("r+b") as stream:
        stream.truncate(10**12)


def oversize_signature(path, outside):
    (path / SIGNATURE_NAME).write_bytes(b"x" * 200_001)


def many_large(path, outside):
    for number in range(5):
        with (path / f"part{number}").open("wb") as stream:
            stream.truncate(49_000_000)


def many_files(path, outside):
    for number in range(300):
        (path / f"file{number}").touch()


def many_directories(path, outside):
    for number in range(300):
        (path / f"directory{number}").mkdir()


def deep(path, outside):
    path.joinpath(*["d"] * 60).mkdir(parents=True)


def name_on_two_lines(path, outside):
    (path / "a\nforged line\x1b[2J").symlink_to(outside)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (symlink_file, r"report\.md is a symbolic link"),
        (symlink_directory, "saved_model is a symbolic link"),
        (dangling_signature, r"model\.sig is a symbolic link"),
        (hard_link, r"report\.md is a hard link"),
        (pipe, r"model\.onnx is not a plain file"),
        (pipe_for_signature, r"model\.sig is not a plain file"),
        (socket_file, "socket is not a plain file"),
        (device, "zero is not a plain file"),
        (oversize, r"report\.md has 50,000,001 bytes"),
        (sparse, r"report\.md has 1,000,000,000,000 bytes"),
        (oversize_signature, r"model\.sig has 200,001 bytes"),
        (many_large, "more than 200,000,000 bytes"),
        (many_files, "more than 200 files"),
        (many_directories, "more than 200 files"),
        (deep, "more than 8 deep"),
        (name_on_two_lines, "forged line.* is a symbolic link"),
    ],
)
def test_files_that_are_none_or_too_much(bundle, outside, keys, change, match):
    change(bundle, outside)
    refuse(bundle, match, public_key=keys[1])
    assert not {name for _, name in EVENTS} & {ONNX_NAME, MANIFEST_NAME, "report.md"}


# --- the manifest -----------------------------------------------------------------------------


def with_file(path, name):
    files = manifest_of(path)["files"]
    record = {"sha256": hashlib.sha256(b"secret").hexdigest(), "size_bytes": 6}
    rewrite(path, files=files | {name: record})


def with_text(path, before, after):
    file = path / MANIFEST_NAME
    assert file.read_text().count(before) >= 1
    file.write_text(file.read_text().replace(before, after, 1))


MANIFESTS = {
    "traversal": (lambda p, o: with_file(p, "../../../outside/secret.txt"), "can't lie in"),
    "inner traversal": (lambda p, o: with_file(p, "saved_model/../../x"), "can't lie in"),
    "absolute": (lambda p, o: with_file(p, str(o / "secret.txt")), "can't lie in"),
    "its own signature": (lambda p, o: with_file(p, SIGNATURE_NAME), "can't lie in"),
    "deep": (lambda p, o: with_file(p, "/".join("a" * 9)), "can't lie in"),
    "terminal codes": (lambda p, o: with_file(p, "\x1b[2Jx"), "can't lie in"),
    "long": (lambda p, o: with_file(p, "x" * 100_000), "can't lie in"),
    "case": (lambda p, o: with_file(p, "MODEL.onnx"), "'model.onnx' and 'MODEL.onnx', which are"),
    "signature's case": (lambda p, o: with_file(p, "Model.Sig"), "one file where case doesn't"),
    "missing": (lambda p, o: with_file(p, "more.txt"), r"more\.txt is missing"),
    "oversize": (
        lambda p, o: (p / MANIFEST_NAME).write_text(" " * 1_000_001),
        r"manifest\.json has 1,000,001 bytes",
    ),
    "nested": (
        lambda p, o: rewrite(p, hyperparameters={"a": json.loads("[" * 900 + "]" * 900)}),
        "is invalid",
    ),
    "nested beyond the stack": (
        lambda p, o: (p / MANIFEST_NAME).write_text('{"a":' * 150_000),
        "nested too deeply",
    ),
    "not UTF-8": (
        lambda p, o: (p / MANIFEST_NAME).write_bytes((p / MANIFEST_NAME).read_bytes() + b"\xff"),
        "not UTF-8",
    ),
    "UTF-16": (
        lambda p, o: (p / MANIFEST_NAME).write_bytes(
            (p / MANIFEST_NAME).read_text().encode("utf-16")
        ),
        "not UTF-8",
    ),
    "a key twice": (
        lambda p, o: with_text(p, '"version": "7"', '"version": "7", "version": "8"'),
        "the key 'version' stands twice",
    ),
    "a file twice": (
        lambda p, o: with_text(p, '"report.md": {', '"report.md": {}, "report.md": {'),
        "the key 'report.md' stands twice",
    ),
    "an unknown key": (lambda p, o: rewrite(p, **{"a\nb": 1}), "is invalid"),
    "no graph": (lambda p, o: rewrite(p, files={}), r"does not name model\.onnx"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", MANIFESTS)
def test_manifests(bundle, outside, case):
    change, match = MANIFESTS[case]
    change(bundle, outside)
    refuse(bundle, match)


def test_files_on_the_disk_that_differ_in_case_only(bundle):
    (bundle / "REPORT.md").write_text("# other\n")
    if (bundle / "report.md").read_text() != "# fine\n":
        pytest.skip("case doesn't count on this disk")
    reseal(bundle)
    refuse(bundle, "one file where case doesn't count")


# --- the graph --------------------------------------------------------------------------------


def external(location, name="far"):
    tensor = numpy_helper.from_array(np.zeros(3, dtype=np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return tensor


def subgraph(kind, tensors=()):
    inner = helper.make_graph([], "inner", [], [], list(tensors))
    name = {"If": "then_branch", "Loop": "body"}[kind]
    return helper.make_node(kind, ["limit"], ["o"], **{name: inner})


def hollow(*dims):
    return TensorProto(name="hollow", data_type=TensorProto.FLOAT, dims=dims, raw_data=b"\0" * 4)


def disguised():
    node = helper.make_node("Identity", ["limit"], ["o"])
    attribute = node.attribute.add()
    attribute.name, attribute.type, attribute.f = "a", 1, 1.0
    attribute.g.name = "hidden"
    return small_model([node])


def with_function():
    model = small_model()
    model.functions.add().name = "f"
    return model


def with_sparse():
    model = small_model()
    sparse_one = model.graph.sparse_initializer.add()
    sparse_one.dims.append(2**40)
    return model


def wide():
    size = numpy_helper.from_array(np.array([2**40], dtype=np.int64), "size")
    return small_model([helper.make_node("ConstantOfShape", ["size"], ["o"])], [size])


def expanded():
    size = numpy_helper.from_array(np.array([2**20, 2**20], dtype=np.int64), "size")
    return small_model([helper.make_node("Expand", ["limit", "size"], ["o"])], [size])


def other_input():
    model = small_model()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 7
    return model


def stranger():
    node = helper.make_node("Shell", ["limit"], ["o"], domain="com.example")
    return small_model([node], opsets=[helper.make_opsetid("com.example", 1)])


class Payload:
    """A pickle of this makes the file ``marker`` when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


OUTSIDE_TENSOR = "'far' lie in another file"
GRAPHS = {
    "external, in the bundle": (lambda o: external("saved_model/1/saved_model.pb"), OUTSIDE_TENSOR),
    "external, above": (lambda o: external("../../../outside/pipe"), OUTSIDE_TENSOR),
    "external, absolute": (lambda o: external(str(o / "pipe")), OUTSIDE_TENSOR),
    "external, /dev/zero": (lambda o: external("/dev/zero"), OUTSIDE_TENSOR),
    "external in an If": (
        lambda o: small_model([subgraph("If", [external(str(o / "pipe"))])]),
        OUTSIDE_TENSOR,
    ),
    "external in a Loop": (
        lambda o: small_model([subgraph("Loop", [external(str(o / "pipe"))])]),
        OUTSIDE_TENSOR,
    ),
    "a Loop": (lambda o: small_model([subgraph("Loop")]), "its Loop holds a graph"),
    "an If": (lambda o: small_model([subgraph("If")]), "its If holds a graph"),
    "a graph in disguise": (lambda o: disguised(), "its Identity hides a graph"),
    "a local function": (lambda o: with_function(), "local functions"),
    "a sparse tensor of 2^40": (lambda o: with_sparse(), "sparse tensors"),
    "operators of a stranger": (lambda o: stranger(), "domain 'com.example'"),
    "an initialiser of 2^40": (lambda o: hollow(2**40), "declares 1099511627776 elements"),
    "an initialiser of 2^128": (lambda o: hollow(2**62, 2**62, 16), "does not hold them"),
    "an initialiser of -1": (lambda o: hollow(-1), "declares -1 elements"),
    "a constant of 2^40": (
        lambda o: small_model([helper.make_node("Constant", [], ["o"], value=hollow(2**40))]),
        "does not hold them",
    ),
    "a tensor of 2^40 made of nothing": (lambda o: wide(), "more than 10,000,000 elements"),
    "a tensor of 2^40 made of one": (lambda o: expanded(), "more than 10,000,000 elements"),
    "other inputs": (lambda o: other_input(), "'features' has shape"),
    "a pickle": (lambda o: pickle.dumps(Payload(o / "marker")), "is not an ONNX file"),
    "an old pickle": (lambda o: pickle.dumps(Payload(o / "marker"), protocol=0), "is refused"),
    "nothing": (lambda o: b"", r"model\.onnx is refused"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", GRAPHS)
def test_graphs(bundle, outside, case):
    make, match = GRAPHS[case]
    made = make(outside)
    replace_graph(bundle, small_model(initializers=[made]) if type(made) is TensorProto else made)
    refuse(bundle, match)
    assert not (outside / "marker").exists()


def test_the_payload_would_work_if_it_were_unpickled(outside):
    pickle.loads(pickle.dumps(Payload(outside / "marker")))
    assert (outside / "marker").exists()


# --- the content ------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [False, True])
def test_content_that_changed_after_sealing(bundle, keys, key):
    (bundle / "report.md").write_text("# bad!\n")
    refuse(bundle, r"report\.md has changed", **({"public_key": keys[1]} if key else {}))


def test_an_extra_file_beside_the_signature(bundle, keys):
    (bundle / "model.sig.bak").write_text("x")
    refuse(bundle, r"'model\.sig\.bak' is not in", public_key=keys[1])


def test_a_directory_that_becomes_a_link_after_the_look_around(bundle, outside, monkeypatch):
    from dwcp_ml.export import verify

    def swapping(path, root):
        found = look(path, root)
        symlink_directory(bundle, outside)
        return found

    look = verify.files_below
    monkeypatch.setattr(verify, "files_below", swapping)
    refuse(bundle, r"saved_model/1/saved_model\.pb can't be read")


def test_a_directory_that_is_swapped_as_a_whole_is_not_looked_at(
    bundle, tmp_path, report, monkeypatch
):
    from dwcp_ml.export import verify

    other = seal(tmp_path / "other", report, disguised_as_harmless())
    before = open_bundle(bundle)

    def swapping(path, root):
        bundle.rename(tmp_path / "away")
        other.rename(bundle)
        return look(path, root)

    look = verify.files_below
    monkeypatch.setattr(verify, "files_below", swapping)
    after = open_bundle(bundle)
    assert (after.digest, after.onnx) == (before.digest, before.onnx)
    monkeypatch.undo()
    assert open_bundle(bundle).digest != before.digest


def disguised_as_harmless():
    model = small_model()
    model.graph.name = "another"
    return model


# --- who could unpickle at all ----------------------------------------------------------------

UNPICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
VERIFIERS = [
    *sorted((PACKAGE / "serving").rglob("*.py")),
    *sorted((PACKAGE / "cli").rglob("*.py")),
    *sorted((PACKAGE / "contract").rglob("*.py")),
    *(PACKAGE / "export" / f"{name}.py" for name in (
        "verify", "signing", "keys", "plain_files", "untrusted_graph", "onnx_graph", "bundle",
    )),
]  # fmt: skip


@pytest.mark.parametrize("path", VERIFIERS, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_who_verifies_or_serves_does_not_even_import_pickle(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            by_name = ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__")
            names = [str(node.args[0].value)] if by_name else []
        else:
            continue
        assert not {name.split(".")[0] for name in names} & UNPICKLERS
