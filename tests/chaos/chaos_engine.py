"""The process of a scripted engine: reads requests, a JSON object a line, and answers each in any order.

    {"id": 1, "token_ids": [...], "max_tokens": 8, "top_logprobs": 11}  ->  {"id": 1, "token_ids": [...], "top": [...]}

Slow on purpose, so that it can be killed in the middle; and as vLLM's core it does not end when nobody listens.
"""

from __future__ import annotations

import asyncio
import json
import sys

from scripted import HashModel

from openrlhf_cft.engine.generate import Sampling

SECONDS_PER_TOKEN = 0.1


async def answer(model: HashModel, request: dict[str, object]) -> None:
    sampling = Sampling(int(str(request["max_tokens"])), top_logprobs=int(str(request["top_logprobs"])))
    generation = await model.generate(list(request["token_ids"]), sampling)  # type: ignore[call-overload]
    await asyncio.sleep(SECONDS_PER_TOKEN * len(generation.token_ids))
    found = {"id": request["id"], "token_ids": generation.token_ids, "top": generation.top_logprobs}
    print(json.dumps(found), flush=True)


async def main() -> None:
    model, tasks = HashModel(int(sys.argv[1])), set()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        task = asyncio.ensure_future(answer(model, json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.sleep(3600)


if __name__ == "__main__":
    asyncio.run(main())
