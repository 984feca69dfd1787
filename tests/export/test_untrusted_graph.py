"""An invalid untrusted graph is rejected, whatever its manifest says."""

import json
import os
import pickle

import onnx
import pytest
from onnx import TensorProto, helper

from dwcp_ml.contract.bundle import MANIFEST_NAME, ONNX_NAME
from dwcp_ml.export.onnx_graph import external_tensor
from tests.export import malicious
from tests.export.bundles import rejected, replace_file, rewrite


class Payload:
    def __reduce__(self):
        return os.system, ("false",)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GARBAGE" * 100,
        pickle.dumps(Payload(), protocol=0),
        pickle.dumps(Payload()),
        pickle.dumps({"weights": list(range(1000))}, protocol=2),
        b"PK\x03\x04" + b"\0" * 100,
    ],
)
def test_what_is_called_onnx_but_is_not(finalized, content):
    replace_file(finalized, ONNX_NAME, content)
    rejected(finalized, r"model\.onnx is rejected")


def test_a_name_that_is_no_text(finalized, forest):
    """ONNX quotes it in what it says, and Python then can't decode the sentence."""
    name = onnx.load_model_from_string(forest.onnx).graph.node[0].op_type.encode()
    changed = forest.onnx.replace(name, b"\x90" + name[1:], 1)
    replace_file(finalized, ONNX_NAME, changed)
    rejected(finalized, r"model\.onnx is rejected")


def test_an_element_type_that_onnx_does_not_know(finalized, forest):
    def change(model):
        model.graph.input[0].type.tensor_type.elem_type = 84

    replace_file(finalized, ONNX_NAME, graph_with(forest, change))
    rejected(finalized, r"model\.onnx is rejected: .*type 84")


def graph_with(forest, change):
    model = onnx.load_model_from_string(forest.onnx)
    change(model)
    return model.SerializeToString()


def external(name="rate"):
    return malicious.external("../../../etc/passwd", name)


def in_initializer(model):
    model.graph.initializer.append(external("far"))


def in_attribute(model):
    node = helper.make_node("Constant", [], ["far"], value=external())
    model.graph.node.append(node)


def in_list_of_tensors(model):
    model.graph.node[0].attribute.append(helper.make_attribute("extra", [external()]))


def in_subgraph(model):
    inner = helper.make_graph([], "inner", [], [], [external()])
    model.graph.node.append(helper.make_node("If", ["c"], ["o"], then_branch=inner))


def in_function(model):
    function = model.functions.add()
    function.node.append(helper.make_node("Constant", [], ["far"], value=external()))


def in_sparse(model):
    model.graph.sparse_initializer.add().values.CopyFrom(external())


def in_training(model):
    model.training_info.add().initialization.initializer.append(external())


def only_the_keys(model):
    tensor = external("far")
    tensor.data_location = TensorProto.DEFAULT
    model.graph.initializer.append(tensor)


@pytest.mark.parametrize(
    "change",
    [
        in_initializer,
        in_attribute,
        in_list_of_tensors,
        in_subgraph,
        in_function,
        in_sparse,
        in_training,
        only_the_keys,
    ],
)
def test_data_outside_the_graph_anywhere_in_the_graph(finalized, forest, change):
    replace_file(finalized, ONNX_NAME, graph_with(forest, change))
    rejected(finalized, "lie in another file")


def test_our_own_graph_has_none(forest):
    assert external_tensor(onnx.load_model_from_string(forest.onnx)) is None


def an_untrusted_opset(model):
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def an_untrusted_node(model):
    model.graph.node.append(helper.make_node("Evil", [], ["x"], domain="com.example"))


@pytest.mark.parametrize("change", [an_untrusted_opset, an_untrusted_node])
def test_operators_of_unknown_domains(finalized, forest, change):
    replace_file(finalized, ONNX_NAME, graph_with(forest, change))
    rejected(finalized, r"domain 'com\.example'")


def test_a_graph_that_is_invalid(finalized, forest):
    def change(model):
        model.graph.node[2].input[0] = "nowhere"

    replace_file(finalized, ONNX_NAME, graph_with(forest, change))
    rejected(finalized, "ONNX calls it invalid")


def test_a_graph_that_is_another_models(finalized, forest):
    def rename(model):
        model.graph.output[0].name = model.graph.node[3].output[0] = "score"
        model.graph.node[4].input[0] = "score"

    replace_file(finalized, ONNX_NAME, graph_with(forest, rename))
    rejected(finalized, "the outputs of the graph are")

    def widen(model):
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 7

    replace_file(finalized, ONNX_NAME, graph_with(forest, widen))
    rejected(finalized, "'features' has shape")

    def fix_batch(model):
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1

    replace_file(finalized, ONNX_NAME, graph_with(forest, fix_batch))
    rejected(finalized, "'features' has shape")


def test_a_manifest_that_promises_another_signature(finalized):
    outputs = json.loads((finalized / MANIFEST_NAME).read_text())["outputs"]
    rewrite(finalized, outputs=[outputs[0] | {"dtype": "float64"}, outputs[1]])
    rejected(finalized, "the contract requires float64")
