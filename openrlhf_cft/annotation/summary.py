"""The summary of an annotation run: its figures, the lines that it prints at its end, and hints at likely problems."""

from __future__ import annotations

from typing import Any

from openrlhf_cft.annotation.annotator import Status
from openrlhf_cft.data.mask_hints import mask_hints
from openrlhf_cft.data.provenance import versions
from openrlhf_cft.data.records import Verdict

MOST_CUT_OFF = 0.8  # of the responses
OUTCOMES = {
    Verdict.CORRECT: "correct",
    Verdict.WRONG: "wrong",
    Verdict.TRUNCATED: "cut off",
    Verdict.UNPARSABLE: "without an answer",
    Verdict.TIMEOUT: "over the verifier's limit",
}


def annotation_summary(config: dict[str, Any], totals: dict[str, float], seconds: float) -> dict[str, Any]:
    """Totals over all runs into this directory: rows by status, positions, rollouts, rates."""
    positions, compared = totals.get("positions", 0), int(totals.get("mask_bits_compared", 0))
    summary: dict[str, Any] = {
        "rows_read": config["rows"],
        **{status.value: int(totals.get(status.value, 0)) for status in Status},
        "failed": config["rows"] - int(totals.get("rows", 0)),
        "positions": int(positions),
        "critical_tokens": int(totals.get("critical", 0)),
        "critical_share": totals.get("critical", 0) / positions if positions else None,
        "rollouts": int(totals.get("rollouts", 0)),
        "rollouts_skipped": int(totals.get("skipped", 0)),
        "rollouts_by_outcome": {verdict.value: int(totals.get(f"rollouts_{verdict}", 0)) for verdict in Verdict},
        "decoded_tokens": int(totals.get("decoded_tokens", 0)),
        "seconds": seconds,
        "rollouts_per_second": totals.get("rollouts", 0) / seconds if seconds else None,
        "tokens_per_second": totals.get("decoded_tokens", 0) / seconds if seconds else None,
        "config": config,
        "versions": versions(),
    }
    if totals.get("passed_over"):
        summary["ids_without_text"] = int(totals["passed_over"])
    if totals.get("samples"):
        summary |= {name: int(totals[name]) for name in ("samples", "samples_correct")}
    if compared:
        summary |= {"mask_bits_compared": compared, "mask_bits_changed": int(totals.get("mask_bits_changed", 0))}
    return summary


def annotation_text(summary: dict[str, Any]) -> str:
    """The lines that a run prints at its end."""
    lines = [
        f"rows read           {summary['rows_read']}",
        f"  wrong             {summary[Status.WRONG.value]}   (ended by itself, not the gold answer)",
        f"  cut off           {summary[Status.CUT_OFF.value]}   (ran out of --annotate.max_new_tokens)",
        f"  prompt too long   {summary[Status.TOO_LONG.value]}",
        f"  bad gold answer   {summary[Status.BAD_ANSWER.value]}   (the verifier refuses it)",
        *(
            [f"  response changed  {summary[Status.CHANGED.value]}   (the chat template changes it)"]
            if summary.get(Status.CHANGED.value)
            else []
        ),
        f"  not finished      {summary['failed']}   (left for the next run)",
        f"  annotated         {summary[Status.ANNOTATED.value]}",
        f"positions           {summary['positions']}",
        f"rollouts            {summary['rollouts']}   ({summary['rollouts_skipped']} skipped: token already decided)",
        *([f"  of them           {_outcomes(summary)}"] if _outcomes(summary) else []),
        *([f"samples             {_samples(summary)}"] if "samples" in summary else []),
        f"decoded tokens      {summary['decoded_tokens']}",
        f"seconds             {summary['seconds']:.1f}",
    ]
    if "ids_without_text" in summary:
        lines.append(
            f"ids without text    {summary['ids_without_text']}   (no alternatives: the tokenizer has none of them)"
        )
    share = summary["critical_share"]
    if share is None:
        lines.append("critical share      none: no response was correct and ended by itself")
        return "\n".join([*lines, *(f"hint: {hint}" for hint in hints(summary))])
    lines.append(f"critical share      {share:.1%}   ({summary['critical_tokens']} tokens)")
    if summary["seconds"]:
        lines.append(
            f"rates               {summary['rollouts_per_second']:.1f} rollouts/s, "
            f"{summary['tokens_per_second']:.0f} decoded tokens/s, start of the engines included"
        )
    if "mask_bits_compared" in summary:
        changed, compared = summary["mask_bits_changed"], summary["mask_bits_compared"]
        lines.append(f"mask bits changed   {changed} of {compared}   ({changed / compared:.2%}, against the source's)")
    return "\n".join([*lines, *(f"hint: {hint}" for hint in hints(summary))])


def hints(summary: dict[str, Any]) -> list[str]:
    """Hints at likely problems of a run, each with a remedy. Most runs get no hint."""
    lines = []
    responses = sum(summary[status.value] for status in (Status.ANNOTATED, Status.WRONG, Status.CUT_OFF))
    if responses and summary[Status.CUT_OFF.value] >= MOST_CUT_OFF * responses:
        lines.append(
            f"{summary[Status.CUT_OFF.value]} of {responses} responses were cut off. Either the model never ends its "
            "turn, as base models do: train it with SFT first, give responses (--data.output_key), or say what ends "
            "one (--annotate.stop). Or its prompts need --data.apply_chat_template, or --annotate.max_new_tokens is "
            "too small"
        )
    cut_off = summary.get("rollouts_by_outcome", {}).get(Verdict.TRUNCATED.value, 0)
    return lines + mask_hints(summary["critical_tokens"], summary["positions"], cut_off, summary["rollouts"])


def _samples(summary: dict[str, Any]) -> str:
    """The number of sampled continuations, and how many of them are correct."""
    return f"{summary['samples']}   ({summary['samples_correct'] / summary['samples']:.1%} correct)"


def _outcomes(summary: dict[str, Any]) -> str:
    """The number of rollouts by outcome, as text; empty if an earlier version did not count them."""
    counts = summary.get("rollouts_by_outcome", {})
    if sum(counts.values()) != summary["rollouts"] or not summary["rollouts"]:
        return ""
    return ", ".join(f"{counts[verdict.value]} {name}" for verdict, name in OUTCOMES.items() if counts[verdict.value])
