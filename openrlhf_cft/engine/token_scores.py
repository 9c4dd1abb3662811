"""A model's scores for each response token: its log-probability, the entropy there, or the attention it receives.

    model = load_model("model", dtype="bfloat16")
    for row, logprobs_T in zip(rows, token_logprobs(model, rows), strict=True): ...

Invariants:

- The token at absolute index p of `prompt_token_ids + response_token_ids` is predicted by the logits at p - 1, and
  response token t is at p = P + t. Logits are computed at these positions only.
- Except for rounding, a row's scores do not depend on the rows beside it: rows are padded on the right, and in a
  causal model later tokens do not change earlier positions. So padding needs no attention mask, and none is given.
  With one, a padded position under a sliding window would see nothing at all: NaN in some implementations.
- Memory holds `WINDOW` rows, and of one batch the logits (at most `batch_tokens` x vocabulary) or one layer's
  attention.

Axes: B batch, L padded length, N response tokens of a batch, P prompt, T response, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from openrlhf_cft.data.model_files import FLAG, TRUST_REMOTE_CODE, first_line
from openrlhf_cft.data.records import ID, PROMPT_IDS, RESPONSE_IDS
from openrlhf_cft.errors import InputError
from openrlhf_cft.progress import Progress

if TYPE_CHECKING:
    import torch

    from openrlhf_cft.engine.logits import SelectedLogits

MEASURES = ("nll", "entropy", "attention")
BATCH_TOKENS = 4096
WINDOW = 2048  # rows that are sorted by length together, so that a batch has rows of similar length
SQUARE = 512  # from this length on, a row's attention (L x L per head) outweighs the rest of the row

Row = Mapping[str, Any]
Ids = tuple[list[int], list[int]]  # of a prompt and its response
_loaded: WeakValueDictionary[tuple[str, str, bool], Any] = WeakValueDictionary()  # models that are still in use


def load_model(path: str, dtype: str = "auto", attention: bool = False, flag: str = FLAG, named: bool = True) -> Any:
    """Load a causal language model of `transformers` for scoring, on the GPU if there is one.

    A second call for the same model returns the same object, as long as that is still in use.

    Args:
        path: directory or hub name.
        dtype: "auto" (as the checkpoint), "bfloat16", "float16" or "float32".
        attention: whether attention weights are needed; only the eager implementation computes them.
        flag: the flag that names the model on the command line, for messages.
        named: see `data.tokenizer.load_tokenizer`.

    Raises:
        InputError: `path` cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM

    key = (path, dtype, attention)
    if (known := _loaded.get(key)) is not None:
        return known
    options = {"attn_implementation": "eager"} if attention else {}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            trust_remote_code=TRUST_REMOTE_CODE and named,
            **options,
        )
    except Exception as error:  # a broken checkpoint, or its own code, may raise anything: the user sees it
        raise InputError(f"{flag}: cannot load {path!r}: {first_line(error)}") from error
    _loaded[key] = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return model


def token_logprobs(
    model: Any, rows: Iterable[Row], batch_tokens: int = BATCH_TOKENS, progress: Progress | None = None
) -> Iterator[list[float]]:
    """The natural log-probability of each response token; see `token_scores`."""
    for nll_T in token_scores(model, rows, "nll", batch_tokens, progress):
        yield [-value for value in nll_T]


def token_scores(
    model: Any, rows: Iterable[Row], measure: str, batch_tokens: int = BATCH_TOKENS, progress: Progress | None = None
) -> Iterator[list[float]]:
    """Score the response tokens of rows, in batches of rows of about the same length.

    Args:
        model: as `load_model` returns it; "attention" needs `attention=True` there.
        rows: with `prompt_token_ids` and `response_token_ids`, and `id` for messages; read `WINDOW` at a time.
        measure: "nll", "entropy" or "attention". "nll" is -log p(token), "entropy" is that of the distribution that
            predicts the token; both are in nats, from full distributions in float32 (float64 of a float64 model).
            "attention" is what the token receives from later tokens of the response: the sum over q > t of the mean
            over layers and heads of A[q, t]. Earlier tokens have more tokens after them; the last one gets 0.
        batch_tokens: padded tokens of a batch; a longer row runs alone.
        progress: updated after each batch; None if the caller has its own.

    Returns:
        For each row, in order, its (T,) scores.

    Raises:
        InputError: a row has no prompt token, has a token that the model does not have, or is longer than the model
            takes; a score is not a number; or the model's logits or attention cannot be reached.
    """
    from openrlhf_cft.engine.logits import SelectedLogits, later_tokens_change_nothing

    if measure not in MEASURES:
        raise InputError(f"{measure!r} is none of {', '.join(MEASURES)}")
    if batch_tokens < 1:
        raise InputError(f"--batch_tokens: {batch_tokens} must be at least 1")
    limits, selected = _Limits(model), SelectedLogits(model)
    if not later_tokens_change_nothing(model.config):
        batch_tokens = 1
    score = _attention if measure == "attention" else _logits
    source = iter(rows)
    try:
        while window := [limits.checked(row) for row in islice(source, WINDOW)]:
            window_scores: list[list[float]] = [[] for _ in window]
            lengths = [len(prompt) + len(response) for prompt, response, _ in window]
            for batch in batches(lengths, batch_tokens, square=measure == "attention"):
                scores = score(model, selected, [window[index][:2] for index in batch], measure)
                for index, scores_T in zip(batch, scores, strict=True):
                    if any(value != value for value in scores_T):
                        raise InputError(f"row {window[index][2]!r}: {measure} is not a number in {model.dtype}")
                    window_scores[index] = scores_T
                if progress is not None:
                    progress.add(len(batch))
            yield from window_scores
    finally:
        selected.remove()


def batches(lengths: Sequence[int], batch_tokens: int, square: bool = False) -> list[list[int]]:
    """Group rows of about the same length into batches, the longest first: if memory is short, the start shows it.

    Args:
        lengths: tokens of each row.
        batch_tokens: limit for the padded tokens of a batch; a single row may exceed it.
        square: rows over `SQUARE` tokens count L / `SQUARE` times, so that a layer's attention is limited too.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    groups: list[list[int]] = []
    for index in order:
        longest = lengths[groups[-1][0]] if groups else 0
        cost = longest * max(longest, SQUARE) / SQUARE if square else longest
        if groups and (len(groups[-1]) + 1) * cost <= batch_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


class _Limits:
    """The limits of a model, to refuse a row before it fails inside the model."""

    def __init__(self, model: Any) -> None:
        config = model.config.get_text_config()
        self._vocabulary = model.get_input_embeddings().num_embeddings
        self._length = getattr(config, "max_position_embeddings", None)

    def checked(self, row: Row) -> tuple[list[int], list[int], object]:
        """Check a row. Returns its prompt ids, its response ids and its name."""
        prompt, response, name = row[PROMPT_IDS], row[RESPONSE_IDS], row.get(ID)
        if not prompt:
            raise InputError(f"row {name!r} has no prompt token: nothing predicts its first response token")
        for token in (min([*prompt, *response]), max([*prompt, *response])):
            if not 0 <= token < self._vocabulary:
                raise InputError(f"row {name!r} has token id {token}, and the model has {self._vocabulary} tokens")
        if self._length and len(prompt) + len(response) > self._length:
            raise InputError(f"row {name!r} has {len(prompt) + len(response)} tokens; the model takes {self._length}")
        return prompt, response, name


def _padded(model: Any, rows: Sequence[Ids]) -> torch.Tensor:
    """The model's input, (B, L), padded on the right."""
    import torch

    sequences = [torch.tensor([*prompt, *response]) for prompt, response in rows]
    return torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True).to(model.device)


def _logits(model: Any, selected: SelectedLogits, rows: Sequence[Ids], measure: str) -> list[list[float]]:
    """nll or entropy of the response tokens of one batch."""
    import torch

    from openrlhf_cft.engine.logits import entropy, nll

    ids_BL = _padded(model, rows)
    length = ids_BL.shape[1]
    positions = [
        row * length + len(prompt) - 1 + token
        for row, (prompt, response) in enumerate(rows)
        for token in range(len(response))
    ]
    positions_N = torch.tensor(positions, device=model.device, dtype=torch.int64)
    with torch.inference_mode(), selected.at(positions_N):
        logits_NV = model(ids_BL, use_cache=False).logits[0]
        targets_N = ids_BL.flatten()[positions_N + 1]
        scores_N = nll(logits_NV, targets_N) if measure == "nll" else entropy(logits_NV)
    rest = iter(scores_N.tolist())
    return [list(islice(rest, len(response))) for _, response in rows]


def _attention(model: Any, selected: SelectedLogits, rows: Sequence[Ids], measure: str) -> list[list[float]]:
    """Attention that the response tokens of one batch receive from later ones."""
    import torch

    sums: list[Any] = [0.0] * len(rows)
    layers = 0

    def add(module: Any, args: Any, output: Any) -> None:
        """Forward hook of an attention module: reads the weights here, so that nothing keeps them."""
        nonlocal layers
        weights_BHLL = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if weights_BHLL is None or weights_BHLL.dim() != 4:
            return
        layers += 1
        for index, (prompt, response) in enumerate(rows):
            part = slice(len(prompt), len(prompt) + len(response))
            mean_TT = weights_BHLL[index, :, part, part].mean(0, dtype=torch.promote_types(model.dtype, torch.float32))
            sums[index] = sums[index] + mean_TT.tril(-1).sum(0)

    hooks = [
        module.register_forward_hook(add) for module in model.modules() if type(module).__name__.endswith("Attention")
    ]
    nowhere = torch.zeros(0, dtype=torch.int64, device=model.device)
    try:
        with torch.inference_mode(), selected.at(nowhere):
            model(_padded(model, rows), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    if not layers:
        raise InputError(f"{type(model).__name__} shows no attention weights: it needs attn_implementation='eager'")
    return [(sum_T / layers).tolist() for sum_T in sums]
