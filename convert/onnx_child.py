"""Runs onnxruntime-genai's graph builder; ``onnx_builder.py`` starts it as a program, with the builder's arguments.

transformers 5 keeps the rotary parameters of Gemma 3 by kind of layer, where the builder looks for one set and for
``rope_local_base_freq``: the configuration that the builder reads is brought into that form.
"""

from __future__ import annotations

from typing import Any


def flat_rope(config: Any) -> Any:
    """``config`` with the rotary parameters of the layers that see everything, and the base of the sliding ones."""
    nested = getattr(config, "rope_parameters", None)
    if isinstance(nested, dict) and isinstance(nested.get("full_attention"), dict):
        full, sliding = nested["full_attention"], nested.get("sliding_attention") or {}
        config.rope_parameters = dict(full)
        config.rope_theta = full["rope_theta"]
        config.rope_local_base_freq = sliding.get("rope_theta", 10000.0)
    return config


def main() -> None:
    from onnxruntime_genai.models import builder

    class FlatConfig:
        @staticmethod
        def from_pretrained(*arguments: Any, **options: Any) -> Any:
            return flat_rope(original.from_pretrained(*arguments, **options))

    original = builder.AutoConfig
    builder.AutoConfig = FlatConfig
    args = builder.get_args()
    places = (args.model_name, args.input, args.output, args.precision, args.execution_provider, args.cache_dir)
    builder.create_model(*places, **builder.parse_extra_options(*places, args.extra_options))


if __name__ == "__main__":
    main()
