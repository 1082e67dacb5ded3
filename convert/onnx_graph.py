"""Edits of the builder's graph: the rows that are wanted, the shapes of the cache, and the metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .failure import ConvertError

ROWS = "output_rows"
_ALL_ROWS = "/model/all_hidden_states"


def finish_graph(path: Path, metadata: dict[str, str], head_size: int) -> None:
    """Rewrite the graph at ``path``; its external data stays as it is.

    The graph gets an input ``output_rows`` (``[n_rows] int64``), and its outputs ``hidden_states`` ``[batch, n_rows,
    n_embd]`` (after the final norm) and ``logits`` ``[batch, n_rows, n_vocab]`` hold those positions only: the head is
    computed for the rows that are read. ``head_size`` is written into the cache's shapes, ``metadata`` into
    ``metadata_props``.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(str(path), load_external_data=False)
    graph = model.graph
    makers = [(at, node) for at, node in enumerate(graph.node) if "hidden_states" in node.output]
    outputs = {value.name: value for value in graph.output}
    if len(makers) != 1 or not {"hidden_states", "logits"} <= set(outputs):
        raise ConvertError(
            "the ONNX graph builder made a graph without hidden states: install another onnxruntime-genai"
        )
    at, maker = makers[0]
    maker.output[:] = [_ALL_ROWS if name == "hidden_states" else name for name in maker.output]
    graph.node.insert(
        at + 1,
        helper.make_node("Gather", [_ALL_ROWS, ROWS], ["hidden_states"], axis=1, name="/model/output_rows/Gather"),
    )
    graph.input.append(helper.make_tensor_value_info(ROWS, TensorProto.INT64, ["n_rows"]))
    for name in ("hidden_states", "logits"):
        _dimensions(outputs[name])[1].dim_param = "n_rows"
    for value in (*graph.input, *graph.output):
        if value.name.startswith(("past_key_values.", "present.")):
            _dimensions(value)[3].dim_value = head_size
    del graph.value_info[:]  # shapes of inner values, some of them wrong now; onnxruntime infers them
    helper.set_model_props(model, metadata)
    onnx.save(model, str(path))


def _dimensions(value: Any) -> Any:
    return value.type.tensor_type.shape.dim
