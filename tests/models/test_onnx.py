"""ONNX weight files: description, signature, and what untrusted ones try."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_networks import INFO, heads, network, write

from src.cli import UserError
from src.models.weights import onnx as onnx_files, sandbox


def refuse(path: Path) -> str:
    """The line with which a file is refused, in this process."""
    with pytest.raises(UserError) as error:
        onnx_files.validate(path)
    assert str(path) in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 600
    return str(error.value)


def test_a_good_file_is_good(tmp_path):
    path = write(network(), tmp_path)
    onnx_files.validate(path)
    sandbox.validate(path)
    session, info = onnx_files.open_session(path)
    assert info == onnx_files.read_info(path) == INFO
    gender, age = session.run(None, {"image": np.zeros((3, 16, 16, 3), np.float32)})
    np.testing.assert_allclose(gender, 1 / 2)
    np.testing.assert_allclose(age, 1 / 101, rtol=1e-5)


def test_description_is_written_once_and_replaced(tmp_path):
    path = write(network(info=None), tmp_path)
    for epoch in (1, 2):
        onnx_files.write_info(path, dataclasses.replace(INFO, epoch=epoch))
    assert onnx_files.read_info(path).epoch == 2
    assert len(onnx.load(path).metadata_props) == 1


@pytest.mark.parametrize(
    "content", [b"", b"a text\n" * 1000, bytes(5000), b"\x89HDF\r\n\x1a\n" + bytes(99), b"\x20\0\0\0ORTM" + bytes(999)]
)
def test_no_onnx_at_all(content, tmp_path):
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    assert "cannot be read" in refuse(path)


@pytest.mark.parametrize("part", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_truncated(part, tmp_path):
    path = write(network(), tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    refuse(path)


def test_an_onnx_file_of_another_origin(tmp_path):
    assert "export.py wrote" in refuse(write(network(info=None), tmp_path))
    with pytest.raises(UserError, match="export.py wrote"):
        onnx_files.read_info(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, '{"format_version": 2}', '{"format_version": 1}']
)
def test_description_that_is_none(text, tmp_path):
    model = network()
    model.metadata_props[0].value = text
    path = write(model, tmp_path)
    refuse(path)
    with pytest.raises(UserError):
        onnx_files.read_info(path)


@pytest.mark.parametrize("values", [{"img_size": 10**9}, {"margin": -1}, {"resize": "cubic"}, {"heads": ["height"]}])
def test_description_that_lies(values, tmp_path):
    model = network()
    model.metadata_props[0].value = json.dumps(json.loads(model.metadata_props[0].value) | values)
    refuse(write(model, tmp_path))


def test_description_longer_than_allowed(tmp_path):
    model = network()
    model.metadata_props[0].value = " " * (onnx_files.ENTRY_LIMIT + 1)
    with pytest.raises(UserError):
        onnx_files.read_info(write(model, tmp_path))


@pytest.mark.parametrize("outputs", [("age", "gender"), ("gender",), ("age",)])
def test_other_outputs(outputs, tmp_path):
    assert "must be float32 [[n, 2], [n, 101]]" in refuse(write(network(outputs=outputs), tmp_path))


def test_another_input(tmp_path):
    assert "must be float32 [[n, 16, 16, 3]]" in refuse(write(network(size=32), tmp_path))


def external(kernel: TensorProto, place: str) -> TensorProto:
    """The same values, said to lie in another file."""
    kernel.ClearField("raw_data")
    kernel.data_location = TensorProto.EXTERNAL
    kernel.external_data.add(key="location", value=place)
    return kernel


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pipe")
@pytest.mark.parametrize("place", ["values.bin", "../values.bin", "absolute"])
@pytest.mark.parametrize("where", ["initializer", "constant"])
def test_nothing_that_a_file_names_is_opened(place, where, tmp_path):
    """The file that holds the values is a pipe: who opens it waits for ever."""
    folder = tmp_path / "folder"
    folder.mkdir()
    pipe = tmp_path / "pipe" if place == "absolute" else folder / place
    os.mkfifo(pipe)
    gender, age = heads()
    age = external(age, str(pipe) if place == "absolute" else place)
    if where == "initializer":
        path = write(network([gender, age]), folder)
    else:
        path = write(network([gender], [helper.make_node("Constant", [], ["age"], value=age)]), folder)
    assert "the values of 'age' in another file" in refuse(path)
    with pytest.raises(UserError, match="in another file"):
        sandbox.validate(path)


def test_location_without_a_name(tmp_path):
    gender, age = heads()
    age.data_location = TensorProto.EXTERNAL
    assert "in another file" in refuse(write(network([gender, age]), tmp_path))


@pytest.mark.parametrize("domain", ["com.microsoft", "ai.onnx.ml", "mine\x1b[31m"])
def test_custom_operators(domain, tmp_path):
    node = helper.make_node("FusedGemm", ["image"], ["unused"], domain=domain)
    model = network(nodes=[node])
    model.opset_import.append(helper.make_opsetid(domain, 1))
    assert "the custom operator" in refuse(write(model, tmp_path))


def test_unknown_operator(tmp_path):
    assert "cannot be read" in refuse(write(network(nodes=[helper.make_node("Evil", ["image"], ["x"])]), tmp_path))


def test_functions_and_training_steps(tmp_path):
    model = network()
    function = helper.make_function("mine", "F", ["x"], ["y"], [helper.make_node("Neg", ["x"], ["y"])], [])
    model.functions.append(function)
    assert "functions or training steps" in refuse(write(model, tmp_path))
    model = network()
    model.training_info.add()
    assert "functions or training steps" in refuse(write(model, tmp_path))


def test_graphs_inside_operators(tmp_path):
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [])
    inner = helper.make_graph([helper.make_node("Identity", ["image"], ["y"])], "inner", [], [output])
    true = helper.make_node("Constant", [], ["true"], value=numpy_helper.from_array(np.array(True)))
    node = helper.make_node("If", ["true"], ["z"], then_branch=inner, else_branch=inner)
    assert "a graph or sparse values inside the operator 'If'" in refuse(write(network(nodes=[true, node]), tmp_path))


def test_sparse_values(tmp_path):
    model = network()
    model.graph.sparse_initializer.add()
    assert "sparse values" in refuse(write(model, tmp_path))


def test_a_second_graph_hides_nothing(tmp_path):
    """Protobuf merges a message that stands twice; a reader that takes the last one would not see the first."""
    gender, age = heads()
    first = network([gender, external(age, "values.bin")]).SerializeToString()
    path = tmp_path / "a.onnx"
    path.write_bytes(first + network().SerializeToString())
    assert "in another file" in refuse(path)


@pytest.mark.parametrize("dims", [(3, 2**33), (2**62, 2**62), (-3, -101), (3, 102)])
def test_declared_size(dims, tmp_path):
    gender, age = heads()
    del age.dims[:]
    age.dims.extend(dims)
    assert "bytes in 'age', which declares" in refuse(write(network([gender, age]), tmp_path))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on memory to set")
@pytest.mark.parametrize("sizes", [(2**40,), (2**15, 2**15, 4)])
def test_gigabytes_that_come_up_at_run_time(sizes, tmp_path):
    shape = numpy_helper.from_array(np.array(sizes), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Add", ["image", "zero"], ["sum"]),
    ]
    model = network([*heads(), shape], nodes)
    model.graph.node[3].input[0] = "sum"
    with pytest.raises(UserError, match=r"a\.onnx.*cannot be read"):
        sandbox.validate(write(model, tmp_path))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.float32, np.float16, np.float64])
def test_values_that_are_no_numbers(bad, kind, tmp_path):
    values = np.zeros((3, 101), kind)
    values[1, 50] = bad
    assert "NaN or infinity in 'age'" in refuse(write(network(heads(values)), tmp_path))


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.BFLOAT16, 99, 0])
def test_values_of_other_types(kind, tmp_path):
    gender, age = heads()
    age.data_type = kind
    assert "values of type" in refuse(write(network([gender, age]), tmp_path))


@pytest.mark.parametrize(("operator", "inputs"), [("Sub", ["gender"] * 2), ("Log", ["gender"]), ("Neg", ["gender"])])
def test_outputs_that_are_no_probabilities(operator, inputs, tmp_path):
    """All 0, logarithms, and negative."""
    model = network()
    model.graph.node[3].output[0] = "gender_softmax"
    renamed = ["gender_softmax" for _ in inputs]
    model.graph.node.append(helper.make_node(operator, renamed, ["pred_gender"]))
    assert "2 probabilities" in refuse(write(model, tmp_path))
