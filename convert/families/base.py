"""What a family has to say about its models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import gguf

from ..lazy_tensor import LazyTensor
from .config import Config

Shapes = dict[str, tuple[int, ...]]


class Family(ABC):
    """Maps one kind of model of transformers to one architecture of GGUF.

    Tensor names are those of the model with its language-model head (``model.embed_tokens.weight``,
    ``lm_head.weight``); :meth:`canonical` brings other spellings there.

    Attributes:
        architecture: GGUF's name of it.
        embedding, head: names of the token embedding and of the output head.
        tied: whether transformers ties the two where ``config.json`` does not say.
        transposed: whether matrices lie as ``[in, out]`` in the checkpoint (Conv1D).
    """

    architecture: ClassVar[str]
    embedding: ClassVar[str] = "model.embed_tokens.weight"
    head: ClassVar[str] = "lm_head.weight"
    tied: ClassVar[bool] = False
    transposed: ClassVar[bool] = False

    def text_config(self, config: Config) -> Config:
        """The part of ``config.json`` that describes the language model."""
        return config

    @abstractmethod
    def canonical(self, name: str) -> str | None:
        """The name used here for a checkpoint's tensor; None for one that is left out (buffers, other modalities)."""

    def is_tied(self, config: Config) -> bool:
        """Whether the output head is the token embedding."""
        stated: Any = config.get("tie_word_embeddings")
        return self.tied if stated is None else bool(stated)

    @abstractmethod
    def n_layers(self, config: Config) -> int:
        """Transformer layers."""

    @abstractmethod
    def width(self, config: Config) -> int:
        """Width of the hidden states."""

    @abstractmethod
    def shapes(self, config: Config) -> Shapes:
        """Every tensor that a checkpoint must hold, but the embedding and the head, with its shape."""

    @abstractmethod
    def check(self, config: Config) -> None:
        """Raise ConvertError, by name, where libllama would compute something else than transformers."""

    @abstractmethod
    def add_hyperparameters(self, writer: gguf.GGUFWriter, config: Config, n_vocab: int) -> None:
        """Add the keys ``<architecture>.*``."""

    def transform(self, tensor: LazyTensor, config: Config) -> LazyTensor:
        """A tensor in the layout that libllama expects."""
        return tensor

    def extra_tensors(self, config: Config) -> list[LazyTensor]:
        """Tensors that the checkpoint does not hold, under their GGUF names."""
        return []
