"""The end of the quickstart: a few responses with their critical tokens coloured, the table, and `report.json`.

python examples/report.py --run_dir runs/quickstart
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from openrlhf_cft.data.location import location
from openrlhf_cft.data.provenance import versions, write_json
from openrlhf_cft.data.records import ANNOTATION_COLUMNS, MASK, RESPONSE_IDS, read_rows
from openrlhf_cft.data.token_text import pieces
from openrlhf_cft.display import marks_for_stdout, printable, visible
from openrlhf_cft.evaluation.text_report import short_tables


def marked(row: dict[str, Any], tokenizer: Any) -> str:
    """A response with its critical tokens red, or between brackets where there is no colour."""
    start, end = marks_for_stdout()
    tokens = zip(pieces(tokenizer, row[RESPONSE_IDS]), row[MASK], strict=True)
    shown = [(printable(visible(token.text)), weight) for token, weight in tokens]
    return "".join(f"{start}{text}{end}" if weight else text for text, weight in shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run_dir", type=Path, required=True)
    parser.add_argument("--examples", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=None, help="wall time of the whole run so far")
    args = parser.parse_args()

    from transformers import AutoTokenizer

    summary = json.loads((args.run_dir / "annotated/.annotate/summary.json").read_text())
    evaluation = json.loads((args.run_dir / "evaluation/metrics.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(summary["config"]["model"])
    print(f"Responses of the model, {marks_for_stdout()[0]}critical tokens{marks_for_stdout()[1]} marked:")
    for _, row in zip(range(args.examples), read_rows(args.run_dir / "annotated"), strict=False):
        question = next(value for name, value in row.items() if name == "question" or name not in ANNOTATION_COLUMNS)
        print(f"  {question}\n    {marked(row, tokenizer)}")
    rows = f"{summary['annotated']} of {summary['rows_read']} rows, {summary['positions']} positions"
    cost = f"{summary['rollouts']} rollouts, {summary['seconds']:.0f} s"
    print(f"\nannotation: {rows}, {summary['critical_share']:.1%} critical, {cost}\n")
    print(short_tables(evaluation))
    print("\n(one seed and few questions: no evidence, only a first look)")
    report = {"annotation": summary, "evaluation": evaluation, "seconds": args.seconds, "versions": versions()}
    write_json(location(args.run_dir / "report.json"), report)
    print(f"\nall of it is in {args.run_dir}: annotated/ sft/ cft/ evaluation/ tensorboard/ report.json")
    print("to look at in a browser:")
    print(f"  every critical token and why it is one:  {args.run_dir}/view.html")
    print(f"  the evaluation, all figures, responses:  {args.run_dir}/evaluation/report.html")


if __name__ == "__main__":
    main()
