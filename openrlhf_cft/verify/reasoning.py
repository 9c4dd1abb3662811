"""The part of a response after its reasoning, as models like R1 write it.

behind_reasoning("<think>5? No, 6.</think>The answer is 6.")      # "The answer is 6."
"""

from __future__ import annotations

ENDS = ("</think>", "</thinking>")


def behind_reasoning(text: str) -> str:
    """The text after the last end of reasoning; the whole text if nothing follows. Takes linear time."""
    for end in ENDS:
        answer = text.rpartition(end)[2]
        if answer.strip():
            text = answer
    return text
