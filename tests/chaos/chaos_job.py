"""The command that `chaos.py` kills and repeats: a real annotation, but for an engine that is scripted.

    python chaos_job.py DIRECTORY ENGINES

Real are: the job, Ray Data, its checkpoint, the annotator, the verifier's processes. The engine is a process of its
own (`chaos_engine.py`), as vLLM's core is, and its death is told in the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripted import EOS, HashModel, decode, literal_greedy

from openrlhf_cft import progress
from openrlhf_cft.annotation.job import AnnotateJob, annotate
from openrlhf_cft.annotation.row_worker import AnnotateWorker, AnnotateWorkerFactory
from openrlhf_cft.annotation.settings import AnnotateSettings
from openrlhf_cft.annotation.summary import annotation_text
from openrlhf_cft.cli.flags import run_command
from openrlhf_cft.data.location import location
from openrlhf_cft.data.source import SourceSettings
from openrlhf_cft.engine.generate import Generation, Sampling
from openrlhf_cft.engine.vllm_engine import EngineSettings
from openrlhf_cft.errors import EngineError
from openrlhf_cft.jobs import progress as jobs
from openrlhf_cft.jobs.pipeline import PoolSettings
from openrlhf_cft.verify.sandbox import VerifierPool
from openrlhf_cft.verify.settings import VerifierSettings

SEED = 7
SETTINGS = AnnotateSettings(top_k=3, max_new_tokens=10)


class ProcessGenerator:
    """A `Generator` over `chaos_engine.py`."""

    stop_token_ids = frozenset([EOS])
    vocabulary = None  # every id is a token
    max_model_len = 100
    decode = staticmethod(decode)

    def __init__(self) -> None:
        engine = [sys.executable, str(Path(__file__).with_name("chaos_engine.py")), str(SEED)]
        self.process = subprocess.Popen(engine, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.dead = False
        self.numbers = itertools.count()
        self.waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        """Pass answers on; at the engine's end fail what still waits."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with contextlib.suppress(json.JSONDecodeError):  # the last line of an engine that was killed
                found = json.loads(line)
                self._settle(found["id"], lambda future, found=found: future.set_result(found))
        self.dead = True
        for number in list(self.waiting):
            self._settle(number, lambda future: future.set_exception(EngineError("the engine's process ended")))

    def _settle(self, number: int, settle: Any) -> None:
        future = self.waiting.pop(number, None)
        if future is not None:
            future.get_loop().call_soon_threadsafe(lambda: None if future.done() else settle(future))

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Generation:
        """See `Generator.generate`."""
        number = next(self.numbers)
        request = {"id": number, "token_ids": list(token_ids), "max_tokens": sampling.max_tokens}
        future = self.waiting[number] = asyncio.get_running_loop().create_future()
        if self.dead:
            raise EngineError("the engine's process has ended")
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps({**request, "top_logprobs": sampling.top_logprobs}) + "\n")
            self.process.stdin.flush()
        except OSError as error:
            self.dead = True
            raise EngineError(f"the engine's process does not listen: {error}") from error
        found = await future
        out = found["token_ids"]
        return Generation(out, out[-1] == EOS, [], [[(i, p) for i, p in top] for top in found["top"]])

    async def score(self, token_ids: Sequence[int], start: int, top_logprobs: int) -> Generation:
        raise NotImplementedError

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


@dataclass(frozen=True)
class ChaosFactory(AnnotateWorkerFactory):
    """The worker of a real annotation over the scripted engine."""

    def __call__(self) -> AnnotateWorker:
        return AnnotateWorker(ProcessGenerator(), VerifierPool(**vars(self.verifier)), self.settings)  # type: ignore[arg-type]


def prepare(directory: Path, rows: int) -> list[dict[str, Any]]:
    """A tokenizer of the model's 8 tokens, and questions whose gold answer is what the model says last, or never says.

    Returns:
        The rows, as in `questions.jsonl`.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config

    words = Tokenizer(models.WordLevel({str(i): i for i in range(8)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    (directory / "model").mkdir()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="0").save_pretrained(directory / "model")
    Qwen2Config(vocab_size=8).save_pretrained(directory / "model")
    (directory / "model" / "model.safetensors").touch()  # the engine is scripted: nothing reads weights
    found, model = [], HashModel(SEED)
    for number in range(rows):
        digits = [1 + (number // 7**place) % 7 for place in range(4)]
        said = decode(literal_greedy(model, digits, SETTINGS.max_new_tokens))
        answer = "9" if number % 5 == 4 or not said else said.split()[-1]
        found.append({"id": f"q{number}", "question": decode(digits), "answer": answer, "digits": digits})
    (directory / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    return found


def main() -> int:
    directory, engines = Path(sys.argv[1]), int(sys.argv[2])
    jobs.PROGRESS_SECONDS = progress.LOG_SECONDS = 1.0
    source = SourceSettings(str(directory / "questions.jsonl"), input_key="question", label_key="answer")
    factory = ChaosFactory(EngineSettings(str(directory / "model")), SETTINGS, VerifierSettings("math", workers=1))
    pool = PoolSettings(num_engines=engines, rows_in_flight=32)
    summary = annotate(AnnotateJob(source, factory, pool, location(directory / "annotated")))
    print(annotation_text(summary), flush=True)
    return 1 if summary["failed"] else 0


if __name__ == "__main__":
    run_command("annotate", main)
