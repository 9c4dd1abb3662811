"""Strings that end a response, as in vLLM, but exact in tokens: the response ends with the token that completes one.

    stop = StopStrings(("\\n\\nQuestion:",), engine.decode)
    stop.cut(generation)                    # up to that token, or as it is
    stop.cut(generation, prefix_ids)        # a rollout: the string may begin in its prefix

The string stays in the response, and no EOS is added after it. Without strings nothing is cut.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace

from openrlhf_cft.engine.generate import Generation


class StopStrings:
    """The strings, and how token ids become text.

    Args:
        strings: any of them ends a response.
        decode: turns the token ids of a response into its text.
    """

    def __init__(self, strings: Sequence[str], decode: Callable[[Sequence[int]], str]) -> None:
        self.strings, self._decode = tuple(strings), decode

    def ends(self, token_ids: Sequence[int]) -> bool:
        """Whether a response contains one of the strings."""
        text = self._decode(token_ids) if self.strings else ""
        return any(string in text for string in self.strings)

    def cut(self, generation: Generation, prefix_ids: Sequence[int] = ()) -> Generation:
        """The generation up to the token that completes a string.

        Args:
            generation: (T,) tokens.
            prefix_ids: the tokens of the response before these; they contain none of the strings.

        Returns:
            (at most T,) tokens; `stopped` is true if they end with a string.
        """
        ids = generation.token_ids
        if not self.ends([*prefix_ids, *ids]):
            return generation
        length = bisect_left(range(len(ids)), True, key=lambda index: self.ends([*prefix_ids, *ids[: index + 1]])) + 1
        return replace(
            generation,
            token_ids=ids[:length],
            stopped=True,
            logprobs=generation.logprobs[:length],
            top_logprobs=generation.top_logprobs[:length],
        )
