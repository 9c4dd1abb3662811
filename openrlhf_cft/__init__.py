"""Critical Token Fine-tuning (arXiv 2510.10974) as a plugin of stock OpenRLHF.

Its two halves share only a file: `annotation` (Ray, vLLM) writes an annotated data set, `train` (DeepSpeed, OpenRLHF)
reads it. Importing this package, `data.records` or `verify` imports neither torch nor vllm nor ray.

    import openrlhf_cft

    openrlhf_cft.judge("so it is $5.00", "5").verdict       # correct
    openrlhf_cft.pass_at_k(samples=8, correct=2, k=4)       # 0.786
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openrlhf_cft.api import annotate, derive, judge, load_annotated
    from openrlhf_cft.data.records import Verdict
    from openrlhf_cft.errors import InputError, JobError
    from openrlhf_cft.evaluation.metrics import pass_at_k
    from openrlhf_cft.train.actor import CriticalTokenActor
    from openrlhf_cft.train.dataset import CriticalTokenDataset
    from openrlhf_cft.train.trainer import CriticalTokenTrainer
    from openrlhf_cft.verify.sandbox import VerifierPool

__version__ = "0.1.0"

_MODULES = {  # the module is imported when its name is first used
    "annotate": "api",
    "derive": "api",
    "judge": "api",
    "load_annotated": "api",
    "pass_at_k": "evaluation.metrics",
    "CriticalTokenActor": "train.actor",
    "CriticalTokenDataset": "train.dataset",
    "CriticalTokenTrainer": "train.trainer",
    "InputError": "errors",
    "JobError": "errors",
    "Verdict": "data.records",
    "VerifierPool": "verify.sandbox",
}
__all__ = [
    "CriticalTokenActor",
    "CriticalTokenDataset",
    "CriticalTokenTrainer",
    "InputError",
    "JobError",
    "Verdict",
    "VerifierPool",
    "annotate",
    "derive",
    "judge",
    "load_annotated",
    "pass_at_k",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
