"""Malicious graphs: rejected with one sentence, and nothing outside is read."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.export.malicious import external, refuse, replace_graph, small_model


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


def unknown_domain():
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
    "operators of an unknown domain": (lambda o: unknown_domain(), "domain 'com.example'"),
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
    "an old pickle": (lambda o: pickle.dumps(Payload(o / "marker"), protocol=0), "is rejected"),
    "nothing": (lambda o: b"", r"model\.onnx is rejected"),
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
