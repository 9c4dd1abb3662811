"""Loads another checkpoint's weights inside vLLM's own worker processes."""

from __future__ import annotations

from typing import Any

EXTENSION = f"{__name__}.Reload"  # for `worker_extension_cls`


class Reload:
    """A base class that vLLM gives to its workers. `collective_rpc("load_checkpoint", args=(path,))` calls it."""

    model_runner: Any

    def load_checkpoint(self, path: str) -> None:
        """Take the weights of the checkpoint in a folder. There must be no request in flight.

        vLLM's own `reload_weights` is not enough on CPUs: it packs a layer again only if the checkpoint has weights of
        its own for that layer. Output embeddings that are tied to the input embeddings have none, and vLLM would keep
        using the old packed copy.
        """
        from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

        self.model_runner.reload_weights(weights_path=path)
        for layer in self.model_runner.get_model().modules():
            method = getattr(layer, "quant_method", None)
            if isinstance(method, UnquantizedEmbeddingMethod) and hasattr(layer, "cpu_linear"):
                method.process_weights_after_loading(layer)
