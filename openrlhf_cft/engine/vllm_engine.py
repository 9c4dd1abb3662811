"""The `Generator` on vLLM's AsyncLLM.

    engine = VllmGenerator(EngineSettings(model="runs/model"))
    generation = await engine.generate([1, 2, 3], Sampling(max_tokens=16))
    engine.close()

Token ids go in and come out; the engine detokenizes only to find stop strings. It must not share a process with
DeepSpeed, because importing DeepSpeed changes torch for vLLM.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openrlhf_cft.data.model_files import FLAG, TRUST_REMOTE_CODE, parameter_count
from openrlhf_cft.data.stop_tokens import stop_token_ids
from openrlhf_cft.data.tokenizer import load_tokenizer
from openrlhf_cft.engine.engine_log import EngineLog
from openrlhf_cft.engine.generate import MAX_LOGPROBS, Generation, Sampling
from openrlhf_cft.engine.gpu_share import gpu_share, starting_alone
from openrlhf_cft.engine.platform import apply_environment, engine_defaults, uses_gpu
from openrlhf_cft.engine.shared_memory import unname_shared_memory
from openrlhf_cft.errors import EngineError, InputError, JobError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from vllm import SamplingParams
    from vllm.outputs import RequestOutput

ALIVE_SECONDS = 1.0  # between two looks at whether the engine lives, while it loads weights
CLOSING_SECONDS = 300.0  # guard against a process that never ends; a slow one must still free its shared memory
SMALL = 3_000_000_000  # parameters; engines of smaller models gain from sharing a GPU
SECRETS = ("hf_token",)  # engine arguments that are neither stored nor shown


@dataclass(frozen=True)
class EngineSettings:
    """One engine. Names as in OpenRLHF's `--vllm.*` flags."""

    model: str
    dtype: str = "auto"
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    max_model_len: int | None = None
    seed: int = 42
    engine_args: dict[str, Any] = field(default_factory=dict)  # passed through to vLLM's AsyncEngineArgs as they are
    name: str = ""  # of the model as the user gave it, for records that are published; "": `model`
    chat: bool = False  # the chat template renders prompts, so its end of the turn ends a response too

    def __post_init__(self) -> None:
        if self.tensor_parallel_size < 1:
            raise InputError(f"--vllm.tensor_parallel_size: {self.tensor_parallel_size} must be at least 1")
        if self.engine_args.get("data_parallel_size", 1) != 1:
            raise InputError(
                f"--vllm.engine_args: data_parallel_size {self.engine_args['data_parallel_size']} would start several "
                "engines in one: leave it out, and give their number as --vllm.num_engines"
            )
        for name in ("tensor_parallel_size", "pipeline_parallel_size"):
            value = self.engine_args.get(name, 1)
            if type(value) is not int or value < 1:
                raise InputError(f"--vllm.engine_args: {name} {value!r} is no number from 1 on")

    @property
    def shown(self) -> str:
        """The model as the user named it."""
        return self.name or self.model

    @property
    def gpus(self) -> int:
        """How many GPUs this engine takes, if it runs on GPUs."""
        tensor = self.engine_args.get("tensor_parallel_size", self.tensor_parallel_size)
        return int(tensor * self.engine_args.get("pipeline_parallel_size", 1))

    @property
    def may_share_gpus(self) -> bool:
        """Whether several of these engines may run on one GPU: those of a small model, each with one GPU."""
        if not uses_gpu() or self.gpus > 1:
            return False
        try:
            return parameter_count(self.model, revision=self.engine_args.get("revision")) < SMALL
        except InputError:  # vLLM has models that transformers does not
            return False

    @property
    def public_args(self) -> dict[str, Any]:
        """The user's engine arguments as they may be stored and shown."""
        return {name: value for name, value in self.engine_args.items() if name not in SECRETS}

    def resolved(self) -> dict[str, Any]:
        """The keyword arguments of AsyncEngineArgs; later ones win: platform, named flags, the user's JSON."""
        named = {
            "model": self.model,
            **({} if self.dtype == "auto" else {"dtype": self.dtype}),
            "tensor_parallel_size": self.tensor_parallel_size,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "max_model_len": self.max_model_len,
            "seed": self.seed,
            "max_logprobs": MAX_LOGPROBS,
            "trust_remote_code": TRUST_REMOTE_CODE,
        }
        # With "mp", vLLM's processes are children of ours. By default vLLM starts Ray actors if the job is in a
        # placement group.
        several = {"distributed_executor_backend": "mp"} if self.gpus > 1 else {}
        wanted = {**engine_defaults(), **several, **named, **self.engine_args}
        wanted["gpu_memory_utilization"] *= gpu_share()
        return wanted

    def load_tokenizer(self, flag: str = FLAG) -> PreTrainedTokenizerBase:
        """The tokenizer of the revision that the engine takes; see `data.tokenizer.load_tokenizer`."""
        revision = self.engine_args.get("tokenizer_revision") or self.engine_args.get("revision")
        return load_tokenizer(self.model, flag, revision=revision)

    def stop_token_ids(self, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
        """The tokens that end a response, see `data.stop_tokens`."""
        return stop_token_ids(tokenizer, self.model, self.engine_args, self.chat)


class VllmGenerator:
    """A `Generator` over one vLLM engine, which runs in processes of its own."""

    def __init__(self, settings: EngineSettings) -> None:
        """Start the engine.

        Raises:
            EngineError: the engine does not start; the message gives the cause that its processes logged.
        """
        apply_environment()
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        self.tokenizer = settings.load_tokenizer()
        self.stop_token_ids = settings.stop_token_ids(self.tokenizer)
        self.vocabulary = frozenset(self.tokenizer.get_vocab().values())
        others = set(multiprocessing.active_children())
        self._log = EngineLog()
        try:
            # On a GPU of 80 GB, the defaults are 128 sequences and 2,048 tokens a step for an AsyncLLM, but 1,024 and
            # 16,384 for offline use. For CPUs, `engine_defaults` has the measured values.
            context = UsageContext.LLM_CLASS if uses_gpu() else UsageContext.ENGINE_CONTEXT
            with starting_alone():
                self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**settings.resolved()), usage_context=context)
        except Exception as error:  # vLLM raises any type, and often only says that its process ended
            raise EngineError(self._log.cause(error), self._log.text()) from error
        self._processes = set(multiprocessing.active_children()) - others
        unname_shared_memory(self._processes)
        self.max_model_len = int(self._llm.model_config.max_model_len)
        self._require_all_stops()
        self._requests = 0

    def _require_all_stops(self) -> None:
        """Refuse an engine that ends requests at other tokens than ours: such responses would count as cut off.

        Raises:
            EngineError: names these tokens.
        """
        configured = self._llm.model_config.try_get_generation_config().get("eos_token_id") or []
        own = set(configured if isinstance(configured, list) else [configured])
        if not own <= self.stop_token_ids:
            self.close()
            missing = sorted(own - self.stop_token_ids)
            raise EngineError(f"vLLM ends responses at the token ids {missing} too, which are no stop tokens here")

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a response, without special tokens."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Generation:
        """See `Generator.generate`."""
        return _to_generation(await self._request(token_ids, self._params(sampling)), sampling, self.stop_token_ids)

    async def score(self, token_ids: Sequence[int], start: int, top_logprobs: int) -> Generation:
        """See `Generator.score`."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            prompt_logprobs=top_logprobs,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        reported = (await self._request(token_ids, params)).prompt_logprobs
        given = list(token_ids[start:])
        if reported is None or len(reported) != len(token_ids):
            raise EngineError("the engine returned no log-probabilities of the given tokens")
        positions = [entry or {} for entry in reported[start:]]
        return Generation(
            token_ids=given,
            stopped=given[-1] in self.stop_token_ids,
            logprobs=[entry[token_id].logprob for token_id, entry in zip(given, positions, strict=True)],
            top_logprobs=[[(i, value.logprob) for i, value in entry.items()] for entry in positions],
        )

    async def _request(self, token_ids: Sequence[int], params: SamplingParams) -> RequestOutput:
        """Run one request to its end."""
        from vllm.exceptions import VLLMError
        from vllm.inputs.engine import tokens_input

        self._requests += 1
        prompt = tokens_input(list(token_ids))  # as vLLM's renderer would make it; raw prompts are deprecated
        final: RequestOutput | None = None
        try:
            async for output in self._llm.generate(prompt, params, f"cft-{self._requests}"):
                final = output
        except VLLMError as error:
            if self.dead:
                raise EngineError(self._log.cause(error), self._log.text()) from error
            raise EngineError(f"{type(error).__name__}: {error}") from error
        if final is None:
            raise EngineError("the engine returned no output")
        return final

    async def load(self, model: str) -> None:
        """Take the weights of another checkpoint, see `shared_engine`. There must be no request in flight.

        Args:
            model: its folder. Its configuration and tokenizer are those of the engine's model.

        Raises:
            JobError: it cannot be loaded; the engine may have a part of it, and must not be used any more.
            EngineError: the engine has died meanwhile, or a request was in flight.
        """
        loading = asyncio.ensure_future(self._load(model))
        while not loading.done() and not self.dead:  # once its core has died, vLLM answers no such call any more
            await asyncio.wait([loading], timeout=ALIVE_SECONDS)
        if self.dead:
            loading.cancel()
            raise EngineError(f"the engine died while it loaded {model!r}", self._log.text())
        try:
            emptied = await loading
        except Exception as error:  # vLLM raises any type
            raise JobError(f"the engine cannot load {model!r}: {self._log.cause(error)}") from error
        if not emptied:
            raise EngineError(f"the engine keeps prefixes of the weights before {model!r}")

    async def _load(self, model: str) -> bool:
        """Whether the keys and values of the old weights are gone."""
        await self._llm.collective_rpc("load_checkpoint", args=(model,))
        return bool(await self._llm.reset_prefix_cache())

    @property
    def dead(self) -> bool:
        """Whether the engine's process has died, so that only a new engine can continue."""
        return bool(self._llm.errored)

    def close(self) -> None:
        """End the engine's processes."""
        self._llm.shutdown()
        deadline = time.monotonic() + CLOSING_SECONDS
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))

    def _params(self, sampling: Sampling) -> SamplingParams:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            logprobs=sampling.top_logprobs or None,  # each one costs the engine's caller more than the token itself
            # vLLM 0.29 on CPU dies on a request with a seed if its prefill is chunked ("CPU Generator does not use
            # offset"). So CPU samples differ from run to run. Drop this once vLLM rewinds only CUDA generators.
            seed=sampling.seed if uses_gpu() else None,
            stop_token_ids=sorted(self.stop_token_ids),
            stop=list(sampling.stop),
            include_stop_str_in_output=True,
            detokenize=bool(sampling.stop),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )


def _to_generation(output: RequestOutput, sampling: Sampling, stops: frozenset[int]) -> Generation:
    """vLLM's final output of one request as a `Generation`."""
    completion = output.outputs[0]
    token_ids = list(completion.token_ids)
    if completion.finish_reason not in ("stop", "length") or not token_ids:
        raise EngineError(f"request ended with {completion.finish_reason!r} after {len(token_ids)} tokens")
    reported = completion.logprobs or []
    return Generation(
        token_ids=token_ids,
        stopped=token_ids[-1] in stops or isinstance(completion.stop_reason, str),
        logprobs=[entry[token_id].logprob for token_id, entry in zip(token_ids, reported, strict=False)],
        top_logprobs=[[(i, value.logprob) for i, value in entry.items()] for entry in reported]
        if sampling.top_logprobs
        else [],
    )
