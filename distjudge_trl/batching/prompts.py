"""From prompt messages to prompt text and token ids. Trainer and judges share this, so that both read the same
judgment position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distjudge_trl.batching.chat_templates import TEMPLATE_ERRORS, Messages, call_template, find_way, hidden_message
from distjudge_trl.errors import JudgmentDataError, UserInputError


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The end of a prompt for models without a chat template. It is a line break and not a blank: many vocabularies keep
# "\n" separate from the text after it, while a trailing blank would merge with the answer.
PLAIN_ANSWER_CUE = "\n\nAnswer:\n"


def render_prompt(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> str:
    """Text of a prompt that ends where the answer begins.

    With a chat template, the template with its generation prompt (`enable_thinking=False`, so that models which think
    first are asked not to; templates that do not know the flag ignore it), called as [`find_way`] found out. Without
    one, the messages' contents separated by blank lines, and an answer cue.

    Raises:
        [`UserInputError`]: the template raises, or leaves out the text of a message.
    """
    if tokenizer.chat_template is None:
        return "\n\n".join(message["content"] for message in messages) + PLAIN_ANSWER_CUE
    way = find_way(tokenizer)
    try:
        text = call_template(tokenizer, messages, way)
    except TEMPLATE_ERRORS as error:
        raise UserInputError(f"The tokenizer's chat template does not take this prompt: {error}.") from None
    if (hidden := hidden_message(text, messages)) is not None:
        start = " ".join(hidden["content"].split())[:40]
        raise UserInputError(
            f"The tokenizer's chat template does not take this prompt: it leaves out text of the {hidden['role']}"
            f" message that begins with {start!r}. Put all of the prompt into one user message, or correct"
            " `chat_template` in the model's folder."
        )
    return text


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Messages],
    *,
    max_length: int | None = None,
    ids: Sequence[str] | None = None,
    source: str | None = None,
) -> list[list[int]]:
    """Token ids of rendered prompts.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the judge's tokenizer.
        prompts (`Sequence` of message lists): what to render.
        max_length (`int`, *optional*): longest prompt allowed, in tokens. Nothing is cut: the end of a prompt is the
            answer cue.
        ids, source (*optional*): named in errors.

    Raises:
        [`JudgmentDataError`]: a prompt longer than `max_length`.
    """
    input_ids = _encode(tokenizer, [render_prompt(tokenizer, prompt) for prompt in prompts])
    for i, row in enumerate(input_ids):
        if max_length is not None and len(row) > max_length:
            raise JudgmentDataError(
                f"the prompt has {len(row)} tokens, more than max_length={max_length}",
                source=source,
                row=ids[i] if ids is not None else i + 1,
                field="prompt",
                fix=(
                    "Raise --max_length or shorten the material. A finished prompt is not cut: its end asks for the"
                    " answer. Recipes and bare items are shortened where they are rendered (--truncate)."
                ),
            )
    return input_ids


def count_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Length in tokens that [`encode_prompts`] gives to a rendered prompt."""
    return len(_encode(tokenizer, [text])[0])


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    # A chat template writes its own special tokens; plain text needs the tokenizer's (such as <s>).
    encoded: Any = tokenizer(
        texts, add_special_tokens=tokenizer.chat_template is None, padding=False, truncation=False, verbose=False
    )
    input_ids: list[list[int]] = encoded["input_ids"]
    for row, text in zip(input_ids, texts, strict=True):
        # Some tokenizers end every text with an end-of-text token, but the judgment is read where the answer begins.
        if row and row[-1] == tokenizer.eos_token_id and not text.endswith(str(tokenizer.eos_token)):
            row.pop()
    return input_ids
