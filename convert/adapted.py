"""A base model with an adapter merged into it: vocabulary first, then every tensor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rim_edge.spec import RimSpec

from .checkpoint import Checkpoint, read_checkpoint, read_spec
from .failure import ConvertError
from .lazy_tensor import LazyTensor, with_rows
from .lora import Adapter, Change, merged_embedding, merged_matrix, read_adapter
from .memory_tokens import grown
from .tokenizer_file import has_tokenizer, read_tokenizer


def read_adapted(base: Path, folder: Path) -> Checkpoint:
    """The model in ``base`` with the adapter in ``folder`` merged, lazily.

    The adapter's tokenizer and ``rim_config.json`` count where it has them. Raises ConvertError with one line where the
    two do not belong together.
    """
    adapter = read_adapter(folder)
    own = read_tokenizer(folder) if has_tokenizer(folder) else None
    checkpoint = read_checkpoint(base, own)
    spec = read_spec(folder, checkpoint.tokenizer) or checkpoint.spec
    if spec is not None:
        known = {"base": checkpoint.name, "adapter": folder.resolve().name}
        spec = replace(spec, source={**known, **spec.source})
    return _Merge(replace(checkpoint, spec=spec), adapter, own is not None).result()


class _Merge:
    """One merge: the base, the adapter, and the rows that the vocabulary gets."""

    def __init__(self, base: Checkpoint, adapter: Adapter, own_tokenizer: bool) -> None:
        self.base = base
        self.adapter = adapter
        self.embedding = base.family.embedding.removesuffix(".weight")
        self.head = base.family.head.removesuffix(".weight")
        self.changes = self._by_canonical_name()
        self.n_rows = self._rows(own_tokenizer)

    def _by_canonical_name(self) -> dict[str, Change]:
        changes = {}
        for module, change in self.adapter.changes.items():
            name = self.base.family.canonical(f"{module}.weight")
            changes[(name or module).removesuffix(".weight")] = change
        return changes

    def _rows(self, own_tokenizer: bool) -> int:
        """Rows of the vocabulary: what a saved embedding has, else enough for every token."""
        saved = [self.changes[name].saved() for name in (self.embedding, self.head) if name in self.changes]
        rows = {tensor.shape[0] for tensor in saved if tensor is not None}
        needed = [index + 1 for index in (self.base.spec.memory_ids if self.base.spec else ())]
        for name in (self.embedding, self.head):
            if name in self.changes and "trained_rows" in self.changes[name].parts:
                needed += [index + 1 for index in self.adapter.trained_indices(self.changes[name].module)]
        if len(rows) > 1 or (rows and max(needed, default=0) > min(rows)):
            raise ConvertError(
                f"{self.adapter.folder}: its saved embedding has {sorted(rows)} rows, its tokens need "
                f"{max(needed, default=0)}"
            )
        if rows:
            return rows.pop()
        own = self.base.tokenizer.n_tokens if own_tokenizer else 0
        return max(self.base.n_vocab, own, *needed, 1)

    def result(self) -> Checkpoint:
        tensors = dict(self.base.tensors)
        for name, change in self.changes.items():
            if name not in (self.embedding, self.head):
                self._merge_module(tensors, name, change)
        embedding, head = self._vocabulary_matrix(self.embedding), self._vocabulary_matrix(self.head)
        assert embedding is not None
        tensors[f"{self.embedding}.weight"] = embedding
        if head is not None:
            tensors[f"{self.head}.weight"] = head
        return replace(self.base, tensors=tensors, notices=(*self.base.notices, *self._notices(head)))

    def _merge_module(self, tensors: dict[str, LazyTensor], name: str, change: Change) -> None:
        weight = f"{name}.weight"
        if weight not in tensors:
            raise ConvertError(
                f"{self.adapter.folder} belongs to another base: {self.base.folder} has no {change.module}"
            )
        for kind in ("weight", "bias"):
            saved = change.saved(kind)
            if saved is not None:
                self._check_same(change, saved, tensors.get(f"{name}.{kind}"))
                tensors[f"{name}.{kind}"] = saved
        if unknown := set(change.parts) - {"lora_A", "lora_B", "magnitude", *_SAVED}:
            raise ConvertError(
                f"{self.adapter.folder}: {change.module} has {sorted(unknown)[0]}, which belongs to an embedding"
            )
        if change.parts.keys() - _SAVED:
            conv = self.base.family.transposed
            tensors[weight] = merged_matrix(self.adapter, change, tensors[weight], conv)

    def _check_same(self, change: Change, saved: LazyTensor, base: LazyTensor | None) -> None:
        if base is None or saved.shape != base.shape:
            shape = None if base is None else base.shape
            raise ConvertError(
                f"{self.adapter.folder} belongs to another base: {change.module} has the shape {saved.shape}, the "
                f"base's {shape}"
            )

    def _vocabulary_matrix(self, name: str) -> LazyTensor | None:
        """The embedding or the head after the merge; None for a head that stays tied."""
        change = self.changes.get(name, Change(name))
        tied = name == self.head and self.base.head is None
        if tied and not self._is_untied(change):
            return None
        base = self.base.head if name == self.head and self.base.head is not None else self.base.embedding
        saved = change.saved()
        if change.saved("bias") is not None:
            raise ConvertError(f"{self.adapter.folder}: {change.module} has a bias, which the base has not")
        if saved is not None:
            if len(saved.shape) != 2 or saved.shape[1] != base.shape[1]:
                raise ConvertError(
                    f"{self.adapter.folder} belongs to another base: {change.module} is {saved.shape}, the base's "
                    f"{base.shape}"
                )
            matrix = saved
        else:
            tokens = frozenset(self.base.tokenizer.vocabulary.values()) | frozenset(self.base.tokenizer.added)
            matrix = grown(base, (), self.n_rows, tokens)
        if "lora_A" in change.parts or "lora_B" in change.parts:
            matrix = merged_matrix(self.adapter, change, matrix, transposed=False)
        elif "lora_embedding_A" in change.parts or "lora_embedding_B" in change.parts:
            matrix = merged_embedding(self.adapter, change, matrix)
        return self._with_trained_rows(change, matrix)

    def _with_trained_rows(self, change: Change, matrix: LazyTensor) -> LazyTensor:
        """``trainable_tokens_delta`` holds whole rows that take the place of the base's, whatever its name says."""
        if "trained_rows" not in change.parts:
            return matrix
        rows, indices = change.parts["trained_rows"], self.adapter.trained_indices(change.module)
        if rows.shape != (len(indices), *matrix.shape[1:]):
            raise ConvertError(
                f"{self.adapter.folder} belongs to another base: {len(indices)} trained rows of {change.module} have "
                f"the shape {rows.shape}"
            )
        return with_rows(matrix, dict(zip(indices, rows.whole(), strict=True)))

    def _is_untied(self, change: Change) -> bool:
        """Whether a head that the base ties to the embedding differs from it after the merge.

        peft changes the two together for trained rows, and apart for everything else: an embedding saved or adapted
            alone leaves the head as it was.
        """
        embedding = self.changes.get(self.embedding, Change(self.embedding))
        own = {role: part for role, part in change.parts.items() if role != "trained_rows"}
        other = {role: part for role, part in embedding.parts.items() if role != "trained_rows"}
        if not own and not other:
            return False
        saved, twin = change.saved(), embedding.saved()
        same = saved is not None and twin is not None and own.keys() <= _SAVED and other.keys() <= _SAVED
        return not (same and _equal(saved, twin))

    def _notices(self, head: LazyTensor | None) -> list[str]:
        notices = []
        if head is not None and self.base.head is None:
            notices.append("the adapter changes the embedding and not the head that is tied to it: the file holds both")
        spec: RimSpec | None = self.base.spec
        change = self.changes.get(self.embedding, Change(self.embedding))
        trained = set(self.adapter.trained_indices(change.module)) if "trained_rows" in change.parts else set()
        covered = change.saved() is not None or "lora_embedding_A" in change.parts
        if (
            spec is not None
            and not covered
            and not set(spec.memory_ids) <= trained
            and max(spec.memory_ids) >= self.base.n_vocab
        ):
            notices.append(
                "THE MEMORY TOKENS ARE UNTRAINED: the adapter holds no embeddings for them, so they get the mean "
                "embedding"
            )
        return notices


_SAVED = {"saved_weight", "saved_bias", "trained_weight", "trained_bias"}


def _equal(left: LazyTensor | None, right: LazyTensor | None) -> bool:
    if left is None or right is None or left.shape != right.shape:
        return False
    return all((a == b).all() for a, b in zip(left.chunks(), right.chunks(), strict=True))
