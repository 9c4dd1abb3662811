"""Tokenizers of other families than the model's, trained in a second on small text; none has to be downloaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

TEXT = [
    "The answer to {0} + {1} is {2}, so there are {2} pieces of fruit.",
    "Zwölf Äpfel für {0} €, naïve façade: {1} × {2} ≤ {0}³",
    "数学の答えは{0}です。 {1} 🎉🎉 {2} 👩‍👩‍👧 done!\n\tNext line: x_{0} = \\frac{{{1}}}{{{2}}}",
]
LINES = [TEXT[i % 3].format(i, 2 * i, 3 * i) for i in range(300)]


def byte_level() -> Any:
    """Byte-level BPE, as in GPT-2, Qwen, Llama 3 and SmolLM2: any byte is a token, characters are split freely."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=["<pad>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(LINES, trainer)
    return _wrap(tokenizer)


def metaspace() -> Any:
    """SentencePiece's way, as in Llama 2, Mistral and Gemma: `▁` is a space, unknown characters fall back to bytes."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, trainers

    # Trained without bytes, then given them: the trainer has no option for it.
    draft = Tokenizer(models.BPE(unk_token="<unk>"))
    draft.normalizer = normalizers.Replace(" ", "▁")
    letters = [line.encode("ascii", "ignore").decode() for line in LINES]
    draft.train_from_iterator(letters, trainers.BpeTrainer(vocab_size=300, special_tokens=["<pad>", "</s>", "<unk>"]))
    model = json.loads(draft.to_str())["model"]
    vocab = dict(model["vocab"])
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(Regex("▁"), " "), decoders.ByteFallback(), decoders.Fuse(), strip]
    )
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return _wrap(tokenizer)


def unigram() -> Any:
    """A unigram model over whole characters, as in T5 and XLM-R: splits differ from those of merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        LINES, trainers.UnigramTrainer(vocab_size=260, special_tokens=special, unk_token="<unk>")
    )
    return _wrap(tokenizer)


FAMILIES: dict[str, Callable[[], Any]] = {"byte_level": byte_level, "metaspace": metaspace, "unigram": unigram}


def _wrap(tokenizer: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", clean_up_tokenization_spaces=False
    )
