"""ONNX models on the CPU: the latent loop over plain onnxruntime behind the back-end protocol.

The folder is made by ``rim-edge convert onnx``. onnxruntime and tokenizers are imported when the first one is loaded;
neither torch nor transformers nor the ``onnx`` package is needed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from rim_edge.backends.base import BackendSession, LoadOptions
from rim_edge.backends.onnx_folder import OnnxFolder, read_folder
from rim_edge.backends.onnx_graph import Graph
from rim_edge.backends.onnx_lanes import Lanes
from rim_edge.backends.onnx_session import OnnxSession
from rim_edge.backends.onnx_vocab import OnnxTokenizer
from rim_edge.errors import CancelledError, ClosedError, ModelFileError, SpecError, UnsupportedError
from rim_edge.results import ModelInfo
from rim_edge.spec import RimSpec


class OnnxBackend:
    """An ONNX folder. Its files are checked before onnxruntime loads the graph.

    Of the options, ``n_threads``, ``n_batch`` and ``progress`` have an effect; the cache is F32.

    Raises:
        ModelFileError: a file is missing or damaged, or the graph is not one of the converter.
        SpecError: wrong memory-slot metadata, or metadata that contradicts the vocabulary.
        UnsupportedError: onnxruntime or tokenizers is not installed.
        CancelledError: the progress callback returned False.
    """

    def __init__(self, path: Path, options: LoadOptions) -> None:
        self._options = options
        folder = read_folder(path)
        for package in ("onnxruntime", "tokenizers"):
            if find_spec(package) is None:
                raise UnsupportedError(f"{path}: ONNX models need {package}: pip install 'rim-edge[onnx-run]'")
        self._progress(0.0)
        graph = Graph(folder, options.n_threads)
        self._graph: Graph | None = graph
        layout = self.layout = graph.layout
        try:
            self.spec = RimSpec.from_props(folder.head.metadata, layout.n_embd)
            self.tokenizer = OnnxTokenizer(
                folder.path, folder.tokenizer_config, folder.bos_id, folder.end_ids, self.spec, layout.n_vocab
            )
            _check_vocabulary(folder, self.tokenizer, self.spec, layout.n_vocab, layout.n_embd)
        except SpecError as error:
            raise SpecError(f"{folder.model_file}: {error}") from None
        self.n_positions: int | None = folder.n_positions
        self.coupled_reason = ""
        self.info = ModelInfo(
            path=os.fspath(path),
            architecture=folder.architecture,
            description=_description(folder),
            n_params=folder.n_params,
            size_bytes=folder.size_bytes,
            n_vocab=layout.n_vocab,
            n_embd=layout.n_embd,
            n_layer=layout.n_layer,
            n_ctx_train=folder.context_length,
        )
        self._progress(1.0)

    def _progress(self, fraction: float) -> None:
        if self._options.progress is not None and self._options.progress(fraction) is False:
            raise CancelledError("loading was cancelled")

    @cached_property
    def prefix(self) -> Sequence[int]:
        """Tokens of ``rim.answer_prefix``; control texts in it are meant, it comes from the model's maker."""
        text = self.spec.answer_prefix if self.spec else None
        return tuple(self.tokenizer.tokenize(text, parse_special=True)) if text else ()

    def open(self, n_cells: int, n_lanes: int, *, blocks: bool) -> BackendSession:
        if self._graph is None:
            raise ClosedError("the model is closed: load it again")
        lanes = Lanes(self._graph.layout, n_lanes, n_cells, self.n_positions or n_cells)
        spec = self.spec if blocks else None
        return OnnxSession(self._graph, self.tokenizer, spec, self.prefix, lanes, self._options.n_batch)

    def close(self) -> None:
        self._graph = None


def _check_vocabulary(
    folder: OnnxFolder, tokenizer: OnnxTokenizer, spec: RimSpec | None, n_vocab: int, n_embd: int
) -> None:
    """Raise where tokenizer, graph and metadata do not belong together."""
    if not 0 < tokenizer.n_tokens <= n_vocab:
        raise ModelFileError(
            f"{folder.path}: tokenizer.json has {tokenizer.n_tokens} tokens, the graph {n_vocab}: "
            "they do not belong together"
        )
    for token in (folder.bos_id, *folder.end_ids):
        if token >= n_vocab:
            raise ModelFileError(f"{folder.path}: genai_config.json names token {token}, the graph has {n_vocab}")
    if spec is None:
        return
    spec.check_model(tokenizer.n_tokens, n_embd)
    for token in spec.memory_ids:
        if not tokenizer.is_control(token):
            raise SpecError(
                f"memory token {token} is the ordinary token {tokenizer.token_text(token)!r}: convert the model again"
            )


def _description(folder: OnnxFolder) -> str:
    words = [folder.architecture, f"{folder.n_params / 1e6:.1f}M" if folder.n_params else "", "ONNX", folder.precision]
    return " ".join(word for word in words if word)
