"""The annotated row: its columns, how it is read and written, and the mask convention, stated once.

Invariants of an annotated row:

- `critical_mask[i]` is the weight (a number >= 0; 0 or 1 from the annotator) of `response_token_ids[i]`, EOS included.
- The token at absolute index p of `prompt_token_ids + response_token_ids` is trained through `loss_mask[p - 1]`,
  because the logits at p - 1 predict it (`data.loss_mask` is the only place that shifts).
- Token ids are never changed. `prompt` and `response` are their decoded text, for reading, not for re-tokenizing.

Suffixes of ragged axes: _P prompt tokens, _T response tokens, _A alternatives of one token.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openrlhf_cft.data.location import Location, location
from openrlhf_cft.errors import InputError

METADATA_KEY = b"openrlhf_cft"

ID = "id"
PROMPT = "prompt"
RESPONSE = "response"
PROMPT_IDS = "prompt_token_ids"
RESPONSE_IDS = "response_token_ids"
MASK = "critical_mask"
ALTERNATIVES = "alternatives"
VERDICT = "verdict"
ANSWER = "response_answer"  # what the verifier found in the response; the gold answer keeps its own column
SAMPLED = "token_samples"  # of the response's own tokens; there with `--annotate.samples`
ANNOTATION_COLUMNS = (ID, PROMPT, RESPONSE, PROMPT_IDS, RESPONSE_IDS, MASK, ALTERNATIVES, VERDICT, ANSWER, SAMPLED)


class Verdict(str, enum.Enum):
    """The verifier's verdict on one response. All but `CORRECT` count as failing."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"  # no answer was found in the text
    TRUNCATED = "truncated"  # not correct as it stands, and cut off by the token budget
    TIMEOUT = "timeout"  # the verifier exceeded its time or memory limit

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Sampled:
    """What became of a token whose continuation was sampled several times."""

    count: int  # of continuations
    correct: int  # of these
    score: float | None  # the mean of the verifier's scores, in [0, 1]; None where there was none
    tokens: int  # decoded in all

    @property
    def rate(self) -> float:
        """The share of correct continuations."""
        return self.correct / self.count


@dataclass(frozen=True)
class Alternative:
    """One counterfactual of one response token."""

    token_id: int
    rank: int  # in the model's distribution at this position, 1 = argmax
    logprob: float  # natural logarithm, of the full distribution
    verdict: Verdict | None  # None where the rollout was skipped
    rollout_length: int  # tokens generated after the alternative; 0 where it is a stop token or was skipped
    truncated: bool  # the rollout ran out of the budget that the response had at this point
    skipped: bool  # an earlier alternative succeeded, so this one could not change the mask
    score: float | None = None  # the verifier's, in [0, 1]; None where there was none
    text: str | None = None  # the rollout's text; None unless `--annotate.keep_rollouts`
    sampled: Sampled | None = None  # None where it was skipped, and without `--annotate.samples`

    @property
    def failed(self) -> bool:
        """Whether this counterfactual was tried and did not end correct."""
        return not self.skipped and self.verdict is not Verdict.CORRECT


def check_weights(row_id: object, weights: Sequence[float] | None, response_ids: Sequence[int], column: str) -> None:
    """Refuse weights that do not fit their response.

    Raises:
        InputError: names the row, and the position where there is one.
    """
    if weights is None:
        raise InputError(f"row {row_id!r} has no value in column {column!r}")
    if len(weights) != len(response_ids):
        raise InputError(
            f"row {row_id!r}: column {column!r} has {len(weights)} weights for {len(response_ids)} response tokens"
        )
    for position, weight in enumerate(weights):
        if weight is None or not math.isfinite(weight) or weight < 0:
            raise InputError(
                f"row {row_id!r}: weight {weight} at response position {position} of column {column!r} is not a "
                "finite number >= 0"
            )


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """A hash of the vocabulary and the special tokens, which decide what token ids mean (`transformers` API)."""
    return hashlib.sha256(json.dumps(fingerprint_state(tokenizer), ensure_ascii=True).encode()).hexdigest()[:16]


def fingerprint_state(tokenizer: Any) -> dict[str, Any]:
    """The values that a fingerprint is a hash of, as JSON."""
    return {
        "vocab": sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0])),
        "special": sorted(set(tokenizer.all_special_ids)),
        "eos": tokenizer.eos_token_id,
    }


def annotation_fields(keep_rollouts: bool = False, samples: bool = False) -> dict[str, Any]:
    """The Arrow types of the columns that annotation adds, by name.

    Args:
        keep_rollouts: whether alternatives have the text of their rollout.
        samples: whether continuations of alternatives and of the response's own tokens were sampled.
    """
    import pyarrow as pa

    sampled = pa.struct(
        [("count", pa.int32()), ("correct", pa.int32()), ("score", pa.float32()), ("tokens", pa.int32())]
    )
    more = [("text", pa.string())] if keep_rollouts else []
    more += [("sampled", sampled)] if samples else []
    alternative = pa.struct(
        [
            ("token_id", pa.int32()),
            ("rank", pa.int32()),
            ("logprob", pa.float32()),
            ("verdict", pa.string()),
            ("rollout_length", pa.int32()),
            ("truncated", pa.bool_()),
            ("skipped", pa.bool_()),
            ("score", pa.float32()),
            *more,
        ]
    )
    return {
        ID: pa.string(),
        PROMPT: pa.string(),
        RESPONSE: pa.string(),
        PROMPT_IDS: pa.list_(pa.int32()),
        RESPONSE_IDS: pa.list_(pa.int32()),
        MASK: pa.list_(pa.float32()),
        ALTERNATIVES: pa.list_(pa.list_(alternative)),
        VERDICT: pa.string(),
        ANSWER: pa.string(),
        **({SAMPLED: pa.list_(sampled)} if samples else {}),
    }


def alternative_to_dict(alternative: Alternative) -> dict[str, Any]:
    """An `Alternative` as the Parquet struct holds it."""
    found = asdict(alternative) | {"verdict": alternative.verdict.value if alternative.verdict else None}
    return {name: value for name, value in found.items() if value is not None or name not in ("text", "sampled")}


def alternative_from_dict(value: Mapping[str, Any]) -> Alternative:
    """The inverse of `alternative_to_dict`.

    Raises:
        ValueError: the verdict is unknown.
    """
    sampled = value.get("sampled")
    return Alternative(
        **{
            **value,
            "verdict": Verdict(value["verdict"]) if value["verdict"] else None,
            "sampled": Sampled(**sampled) if sampled else None,
        }
    )


def parquet_files(path: str | Path) -> list[Path]:
    """The Parquet files of a data set (a file, or a directory of files), sorted, without hidden ones."""
    path = Path(path)
    if path.is_file():
        return [path]
    return sorted(file for file in path.glob("*.parquet") if not file.name.startswith("."))


def read_metadata(path: str | Path) -> dict[str, Any] | None:
    """The annotator's metadata in the first Parquet file of `path`; None if there is none (not annotated)."""
    files = _files(path)
    if not files:
        return None
    stored = (files[0].schema().metadata or {}).get(METADATA_KEY)
    return json.loads(stored) if stored else None


def read_rows(path: str | Path, columns: list[str] | None = None) -> Iterable[dict[str, Any]]:
    """The rows of a Parquet data set, a local path or a URI, one record batch in memory at a time."""
    for file in _files(path):
        yield from file.rows(columns)


def _files(path: str | Path) -> list[Location]:
    """As `parquet_files`, on any filesystem."""
    target = location(path)
    if not target.is_dir():
        return [target] if target.exists() else []
    return [file for file in target.files(".parquet") if not file.name.startswith(".")]
