"""Small ONNX weight files for tests, and hostile ones."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from src.models.weights.info import WeightsInfo, to_json

INFO = WeightsInfo("MobileNetV2", 16, 0.25, data="noise", metrics={"val_pred_age_mae": 5.5})


def heads(values: np.ndarray | None = None) -> list[TensorProto]:
    """Kernels of the two heads, `(3, 2)` and `(3, 101)`."""
    rng = np.random.default_rng(0)
    kernels = [rng.normal(0, 0.01, (3, classes)).astype(np.float32) for classes in (2, 101)]
    if values is not None:
        kernels[1] = values
    return [numpy_helper.from_array(kernel, name) for kernel, name in zip(kernels, ("gender", "age"), strict=True)]


def network(kernels=None, nodes=(), size: int = 16, outputs=None, info: WeightsInfo | None = INFO) -> onnx.ModelProto:
    """Mean colour -> two softmax heads; `nodes` are put in front and see `image`."""
    graph_nodes = [
        *nodes,
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2], keepdims=0),
        *(helper.make_node("MatMul", ["mean", name], [f"{name}_logits"]) for name in ("gender", "age")),
        *(helper.make_node("Softmax", [f"{name}_logits"], [f"pred_{name}"]) for name in ("gender", "age")),
    ]
    values = {
        name: helper.make_tensor_value_info(f"pred_{name}", TensorProto.FLOAT, ["n", classes])
        for name, classes in (("gender", 2), ("age", 101))
    }
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", size, size, 3])
    names = outputs or ("gender", "age")
    graph = helper.make_graph(graph_nodes, "g", [image], [values[name] for name in names], kernels or heads())
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    if info:
        helper.set_model_props(model, {"age_gender": to_json(info)})
    return model


def write(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "a.onnx"
    path.write_bytes(model.SerializeToString())
    return path
