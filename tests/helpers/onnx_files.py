"""ONNX files of a small network, for tests that read them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
FLOAT, FLOAT16, UINT8 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.UINT8


class Net(nn.Module):
    """A convolution, its mean and a linear layer, which `write` writes as ONNX operators."""

    def __init__(self, classes: int = 4, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3, stride=2)
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().mean((2, 3)))  # type: ignore[no-any-return]


def write(
    path: Path,
    net: Net,
    *,
    shape: Sequence[int | str] = ("N", 3, 16, 16),
    dtype: int = FLOAT,
    outputs: Sequence[str] = ("logits",),
    probs: bool = False,
    last: str | None = None,
    channels_last: bool = False,
    metadata: dict[str, str] | None = None,
    external: str | None = None,
) -> Path:
    """An ONNX file of the net."""
    numpy_type = np.float16 if dtype == FLOAT16 else np.float32
    weights = [
        numpy_helper.from_array(value.detach().numpy().astype(numpy_type), name)
        for name, value in net.state_dict().items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["h"], strides=[2, 2]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "head.weight", "head.bias"], ["z"], transB=1),
        helper.make_node(last or ("Softmax" if probs else "Identity"), ["z"], ["logits"]),
        helper.make_node("Identity", ["f"], ["features"]),
    ]
    images = "images" if channels_last or dtype == UINT8 else "x"
    if dtype == UINT8:
        weights.append(numpy_helper.from_array(np.float32(255), "most"))
        planes = [helper.make_node("Transpose", ["shares"], ["x"], perm=[0, 3, 1, 2])] if channels_last else []
        last_step = "shares" if channels_last else "x"
        cast = helper.make_node("Cast", [images], ["floats"], to=FLOAT)
        nodes[:0] = [cast, helper.make_node("Div", ["floats", "most"], [last_step]), *planes]
    elif channels_last:
        nodes.insert(0, helper.make_node("Transpose", [images], ["x"], perm=[0, 3, 1, 2]))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(images, dtype, shape)],
        [helper.make_tensor_value_info(name, FLOAT if dtype == UINT8 else dtype, None) for name in outputs],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, metadata or {})
    options = {"save_as_external_data": True, "location": external, "size_threshold": 0} if external else {}
    onnx.save_model(model, str(path), **options)
    return path
