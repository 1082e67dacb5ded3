"""Whether a converted model computes what PyTorch computes: logits at every block readout, and token ids.

    python bench/convert_parity.py DIR [--blocks 8 --block-size 2]
    python bench/convert_parity.py SmolLM2-135M-Instruct.gguf --blocks 8

DIR is a Hugging Face folder; of a GGUF file such a folder is restored first (its weights, dequantized by transformers,
count as the original). The model is converted to F32 and run with an F32 cache and without flash attention, against
PyTorch in FP32. Needs the extra ``parity``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from rim_edge.convert.to_gguf import convert
from tokenizers import Tokenizer

from rim_edge import _native
from rim_edge.spec import BEGIN_TEXT, END_TEXT, MEMORY_TEXT, RimSpec

QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)


def restore(file: Path, folder: Path) -> None:
    """Write the Hugging Face folder of a Llama-shaped GGUF with the tokenizer of SmolLM."""
    import gguf
    from tokenizers import decoders, models, pre_tokenizers

    loaded = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    config = transformers.LlamaConfig(
        **{k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"}
    )
    fresh = transformers.LlamaForCausalLM(config)
    fresh.load_state_dict(loaded.state_dict())
    fresh.save_pretrained(folder)
    fields = gguf.GGUFReader(file).fields
    texts, kinds, merges = (fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "token_type", "merges"))
    vocabulary = {text: index for index, text in enumerate(texts)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in merges]))
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [text for text, kind in zip(texts, kinds, strict=True) if kind == gguf.TokenType.CONTROL]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def compare(folder: Path, file: Path, notices: list[str]) -> None:
    """Print the differences between the folder in PyTorch and its GGUF in libllama."""
    model = _native.Model(str(file))
    spec = RimSpec.from_gguf(_native.GgufFile(str(file)).metadata, model.n_embd)
    if spec is None:
        raise SystemExit("the model has no memory blocks: give --blocks")
    prompt = model.tokenize(QUESTION)
    blocks = _native.Blocks(
        begin_id=spec.begin_id,
        memory_id=spec.memory_id,
        end_id=spec.end_id,
        size=spec.block_size,
        count=spec.block_count,
        prefix=[],
    )
    options = _native.SessionOptions(n_ctx=1024, cache_type="f32", flash_attention="off")
    (readouts,) = _native.Session(model, blocks, options).think([prompt], spec.block_count, logits=True)
    ours = np.stack([readout.logits for readout in readouts])

    reference: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    n_old = reference.config.get_text_config().vocab_size
    if model.n_vocab > n_old:  # memory tokens that the conversion added, at the mean embedding
        reference.resize_token_embeddings(model.n_vocab, mean_resizing=False)
        for module in (reference.get_input_embeddings(), reference.get_output_embeddings()):
            module.weight.data[n_old:] = module.weight.data[:n_old].double().mean(0).float()
    tokens = [*prompt, *list(spec.block_tokens) * spec.block_count]
    rows = [len(prompt) - 1 + spec.block_width * (block + 1) for block in range(spec.block_count)]
    with torch.no_grad():
        theirs = reference(torch.tensor([tokens])).logits[0, rows].numpy()

    largest, spread = np.abs(ours - theirs).max(), theirs.max() - theirs.min()
    same = int((ours.argmax(1) == theirs.argmax(1)).sum())
    print(f"{model.architecture}: {len(rows)} readouts after {len(prompt)} tokens, {model.n_vocab} logits each")
    print(f"largest difference {largest:.1e}, {largest / spread:.1e} of the range {spread:.1f}")
    print(f"same top token in {same} of {len(rows)} readouts")

    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
    from varied_strings import varied_strings

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([BEGIN_TEXT, MEMORY_TEXT, END_TEXT])
    for parse_special in (True, False):
        tokenizer.encode_special_tokens = not parse_special
        different = sum(
            tokenizer.encode(text, add_special_tokens=False).ids != model.tokenize(text, parse_special=parse_special)
            for text in varied_strings()
        )
        print(
            f"token ids of 2000 strings, control texts {'parsed' if parse_special else 'as text'}: {different} differ"
        )
    for notice in notices:
        print(f"note: {notice}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Parity of a converted model with PyTorch.")
    parser.add_argument("source", type=Path, help="Hugging Face folder, or a GGUF file of the Llama shape")
    parser.add_argument("--blocks", type=int, help="memory blocks for a plain model")
    parser.add_argument("--block-size", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = options.source
        if folder.is_file():
            folder = Path(place) / "hf"
            restore(options.source, folder)
        file = Path(place) / "model.gguf"
        notices = convert(folder, file, "f32", blocks=options.blocks, block_size=options.block_size)
        compare(folder, file, notices)


if __name__ == "__main__":
    main()
