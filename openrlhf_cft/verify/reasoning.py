"""What a response says behind its reasoning, as models of R1's kind write it.

behind_reasoning("<think>5? No, 6.</think>The answer is 6.")      # "The answer is 6."
"""

from __future__ import annotations

ENDS = ("</think>", "</thinking>")


def behind_reasoning(text: str) -> str:
    """The text behind the last end of reasoning; all of it where nothing is there. Takes linear time."""
    for end in ENDS:
        answer = text.rpartition(end)[2]
        if answer.strip():
            text = answer
    return text
