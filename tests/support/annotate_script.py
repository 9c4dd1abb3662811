"""Annotates on one real engine, without Ray, and writes down what came out. Started by `test_annotate_engine.py`.

python annotate_script.py --model PATH --jobs jobs.json --output outcomes.json

A job is {"settings": {...}, "rows": [[prompt_ids, answer, given_ids or null], ...]}; all run on the same engine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

from openrlhf_cft.annotation.annotator import Annotator
from openrlhf_cft.annotation.row_worker import to_payload
from openrlhf_cft.annotation.settings import AnnotateSettings, Question
from openrlhf_cft.engine.vllm_engine import EngineSettings, VllmGenerator
from openrlhf_cft.verify.sandbox import VerifierPool


async def run(model: str, jobs: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    generator, verifier = VllmGenerator(EngineSettings(model, dtype="float32")), VerifierPool("math")
    try:
        found = []
        for job in jobs:
            settings = AnnotateSettings(**{**job["settings"], "stop": tuple(job["settings"].get("stop", ()))})
            annotator = Annotator(generator, verifier, generator.decode, settings)
            outcomes = await asyncio.gather(
                *(annotator.annotate(Question(ids, answer), given) for ids, answer, given in job["rows"])
            )
            found.append([{"status": outcome.status, **to_payload(outcome)} for outcome in outcomes])
        return found
    finally:
        verifier.close()
        generator.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    for flag in ("--model", "--jobs", "--output"):
        parser.add_argument(flag, required=True)
    flags = parser.parse_args()
    with open(flags.jobs) as file:
        jobs = json.load(file)
    found = asyncio.run(run(flags.model, jobs))
    with open(flags.output, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
