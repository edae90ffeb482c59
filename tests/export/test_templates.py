from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from instructmining.bundle.template import Template
from instructmining.errors import ExportError, RowError
from instructmining.tokenizing.templates import conversation, document, question
from instructmining.tokenizing.tokenizer import TextEncoder
from instructmining.tokenizing.truncation import Tokens
from instructmining.types import Example, Turn, TurnRole
from instructmining_export import templates

CORPUS = [
    "user\nName a colour.",
    "assistant\nGreen is a colour, and so are blue and red.",
    "The train leaves at noon; the ferry sails at three.",
    "question: Is this a natural response in the dialogue? response: dialogue history:",
    "Bread rises because yeast gives off gas in the dough. [INST] [/INST]",
]
QUESTION, ANSWER = Turn("user", "Name a colour."), Turn("assistant", "Green.")

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN_2_5 = r"""
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
{%- else %}
    {{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first)
            or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- message.content }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
QWEN_3 = r"""
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and
            not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1] %}
                {%- set reasoning_content = reasoning_content.lstrip('\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n'
                    + content.lstrip('\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- content }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
LLAMA_3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA_3_1 = r"""{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{{- "Cutting Knowledge Date: December 2023\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim }}
        {{- '<|eot_id|>' }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
"""
ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must "
    "alternate user/assistant/user/assistant/...') }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}" + ALTERNATE + "{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ message['content'] + eos_token}}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
MISTRAL_WITHOUT_SPACES = MISTRAL.replace("[INST] ", "[INST]").replace(" [/INST]", "[/INST]")
MISTRAL_V3 = r"""
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('After the optional system message, conversation roles must alternate') }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial system") }}
    {%- endif %}
{%- endfor %}
"""
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = "
    "messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}" + ALTERNATE + "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}{% else %}"
    "{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' '  + content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}" + ALTERNATE + "{% if (message['role'] == 'assistant') %}"
    "{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
PHI_3 = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + "
    "'<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + "
    "eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n"
    "{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)


# Tokenizers, trained in memory


def byte_level(*specials: AddedToken | str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def sentence_piece(*specials: AddedToken | str, legacy: bool = False) -> Tokenizer:
    """BPE as SentencePiece's is converted: spaces as marks, bytes for what is unknown.

    A text begins with a mark; legacy conversions put one after every special token too.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    names = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=names, show_progress=False)
    # Words for training: a merge may not join two of them.
    words = [f" {word}" for line in CORPUS for word in line.split()]
    tokenizer.train_from_iterator(words, trainer)
    state = json.loads(tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    for byte in range(256):
        vocabulary.setdefault(f"<0x{byte:02X}>", len(vocabulary))
    state["model"]["byte_fallback"] = True
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(list(specials))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def unigram(end: str, *more: str) -> Tokenizer:
    """A Unigram model as T5's and DeBERTa's are converted."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Strip(left=False, right=True), normalizers.Replace(" ", " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<pad>", end, *more, "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def with_chat(tokenizer: Tokenizer, template: str, **specials: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template, **specials)


CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LLAMA_3_TOKENS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
PHI_3_TOKENS = [
    AddedToken(name, rstrip=True, special=True, normalized=False)
    for name in ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>")
]
THINK = [AddedToken(name, special=False, normalized=False) for name in ("<think>", "</think>")]


def qwen_3() -> PreTrainedTokenizerFast:
    tokenizer = byte_level(*CHATML_TOKENS)
    tokenizer.add_tokens(THINK)
    return with_chat(tokenizer, QWEN_3)


def mistral(template: str, *specials: str, legacy: bool = False) -> PreTrainedTokenizerFast:
    return with_chat(sentence_piece(*specials, legacy=legacy), template, bos_token="<s>", eos_token="</s>")


CHAT_MODELS = {
    "smollm2": lambda: with_chat(byte_level(*CHATML_TOKENS), SMOLLM2),
    "qwen-2.5": lambda: with_chat(byte_level(*CHATML_TOKENS), QWEN_2_5),
    "qwen-3": qwen_3,
    "llama-3": lambda: with_chat(byte_level(*LLAMA_3_TOKENS), LLAMA_3, bos_token="<|begin_of_text|>"),
    "llama-3.1": lambda: with_chat(byte_level(*LLAMA_3_TOKENS), LLAMA_3_1, bos_token="<|begin_of_text|>"),
    "llama-2": lambda: mistral(LLAMA_2, legacy=True),
    "mistral": lambda: mistral(MISTRAL),
    "mistral-legacy": lambda: mistral(MISTRAL, legacy=True),
    "mistral-without-spaces": lambda: mistral(MISTRAL_WITHOUT_SPACES),
    "mistral-control-tokens": lambda: mistral(MISTRAL_WITHOUT_SPACES, "[INST]", "[/INST]"),
    "mistral-v3": lambda: mistral(MISTRAL_V3, "[INST]", "[/INST]"),
    "gemma": lambda: mistral(GEMMA, "<start_of_turn>", "<end_of_turn>"),
    "phi-3": lambda: with_chat(sentence_piece(*PHI_3_TOKENS, legacy=True), PHI_3, eos_token="<|endoftext|>"),
    "zephyr": lambda: mistral(ZEPHYR, legacy=True),
}
WITH_SYSTEM = ("smollm2", "qwen-2.5", "qwen-3", "llama-3", "llama-3.1", "llama-2", "phi-3", "zephyr")
WITH_TOOLS = ("smollm2", "qwen-2.5", "qwen-3", "llama-3")


class Chat:
    """A model's tokenizer and what is derived from it."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
        self.tokenizer = tokenizer
        self.form = templates.from_chat_template(tokenizer)
        self.template = Template.from_json(self.form, "here")
        tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
        self.encoder = TextEncoder(folder / "tokenizer.json")

    def ours(self, *turns: Turn, max_length: int = 10_000) -> Tokens:
        (tokens,) = self.encoder.rendered([conversation(Example(turns), self.template)], max_length=max_length)
        return tokens

    def theirs(self, *turns: Turn) -> list[int]:
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def scored(self, tokens: Tokens) -> str:
        return str(self.tokenizer.decode(tokens.ids[tokens.scored]))


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Chat]:
    return {name: Chat(make(), tmp_path_factory.mktemp(name)) for name, make in CHAT_MODELS.items()}


def turns_of(*texts: str, roles: Sequence[TurnRole] = ("user", "assistant")) -> list[Turn]:
    return [Turn(roles[number % len(roles)], text) for number, text in enumerate(texts)]


TALKS = {
    "one": turns_of("Name a colour.", "Green."),
    "two": turns_of("Name a colour.", "Green.", "Another?", "Blue and red, 漢字 😀."),
    "edges": turns_of("  a \n", " \n b  ", "\n\nc", "\n d\n"),
    "blank": turns_of(" ", "x", "y", "The train\nleaves\r\n\n at noon."),
    "open": turns_of("Name a colour.", "Green.", "Why?"),
}


# Chat templates


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("model", CHAT_MODELS)
def test_the_ids_are_those_of_transformers(chats: dict[str, Chat], model: str, talk: str) -> None:
    chat = chats[model]
    assert chat.ours(*TALKS[talk]).ids.tolist() == chat.theirs(*TALKS[talk])


@pytest.mark.parametrize("model", WITH_SYSTEM)
def test_a_system_turn_is_where_the_model_has_it(chats: dict[str, Chat], model: str) -> None:
    turns = [Turn("system", " Be brief.\n"), *TALKS["two"]]
    assert chats[model].ours(*turns).ids.tolist() == chats[model].theirs(*turns)


@pytest.mark.parametrize("model", WITH_TOOLS)
def test_tool_turns_are_where_the_model_has_them(chats: dict[str, Chat], model: str) -> None:
    turns = [*TALKS["one"], Turn("tool", "22 degrees"), Turn("tool", " 23\n"), Turn("assistant", "Warm.")]
    assert chats[model].ours(*turns).ids.tolist() == chats[model].theirs(*turns)


@pytest.mark.parametrize("model", sorted(set(CHAT_MODELS) - set(WITH_SYSTEM)))
def test_a_system_turn_that_the_model_refuses_moves_or_drops_is_a_row_error(chats: dict[str, Chat], model: str) -> None:
    with pytest.raises(RowError, match="no place for a turn of role 'system' at the beginning"):
        chats[model].ours(Turn("system", "Be brief."), QUESTION, ANSWER)


@pytest.mark.parametrize("model", sorted(set(CHAT_MODELS) - set(WITH_TOOLS)))
def test_a_tool_turn_that_the_model_refuses_rewrites_or_drops_is_a_row_error(
    chats: dict[str, Chat], model: str
) -> None:
    with pytest.raises(RowError, match="no place for a turn of role 'tool' after 'assistant'"):
        chats[model].ours(QUESTION, ANSWER, Turn("tool", "22 degrees"), ANSWER)


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_the_scored_tokens_are_the_responses(chats: dict[str, Chat], model: str) -> None:
    turns = turns_of("Name a colour.", "Green.", "Another?", "Blue, and so are 漢字.")
    scored = chats[model].scored(chats[model].ours(*turns))
    assert scored.replace(" ", "") == "Green.Blue,andsoare漢字."


@pytest.mark.parametrize("model", ["llama-3", "gemma"])
def test_what_a_template_trims_is_not_scored(chats: dict[str, Chat], model: str) -> None:
    assert chats[model].scored(chats[model].ours(QUESTION, Turn("assistant", " \n Green. \n\n"))) == "Green."


def test_whitespace_that_a_special_token_takes_with_it_is_not_scored(chats: dict[str, Chat]) -> None:
    chat = chats["phi-3"]
    assert set(chat.form["strip"].values()) == {"left"}
    tokens = chat.ours(QUESTION, Turn("assistant", "\n\n Green.\n"))
    assert chat.tokenizer.convert_ids_to_tokens(int(tokens.ids[tokens.scored[0] - 1])) == "<|assistant|>"
    assert chat.scored(tokens).endswith("Green.\n")


def test_the_last_response_alone_gets_the_empty_thought(chats: dict[str, Chat]) -> None:
    gaps, strip = chats["qwen-3"].form["gaps"], chats["qwen-3"].form["strip"]
    start, end = ["special", "<|im_start|>"], ["special", "<|im_end|>"]
    assert gaps["user>assistant"] == [end, ["literal", "\n"], start, ["literal", "assistant\n"]]
    thought = "assistant\n<think>\n\n</think>\n\n"
    assert gaps["user>response"] == [end, ["literal", "\n"], start, ["literal", thought]]
    assert strip == {"response": "left newlines"}


def test_a_default_system_turn_stands_before_a_first_user_turn_only(chats: dict[str, Chat]) -> None:
    gaps = chats["smollm2"].form["gaps"]
    default = "system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    assert ["literal", default] in gaps["start>user"]
    assert gaps["start>system"] == [["special", "<|im_start|>"], ["literal", "system\n"]]
    assert gaps["response>end"] == [["special", "<|im_end|>"], ["literal", "\n"]]


def test_an_order_that_depends_on_more_than_the_turns_beside_it_is_left_out(chats: dict[str, Chat]) -> None:
    # Qwen3 looks for the last user turn: without one, the last response has no thought.
    chat, alone, lacking = chats["qwen-3"], (ANSWER,), (Turn("system", "Be brief."), ANSWER)
    for turns in (alone, lacking):
        with pytest.raises(RowError):
            chat.ours(*turns)
        assert "think" not in chat.tokenizer.decode(chat.theirs(*turns))


def test_the_day_is_one_that_stays(chats: dict[str, Chat]) -> None:
    dated = LLAMA_3_1.replace('set date_string = "26 Jul 2024"', 'set date_string = strftime_now("%d %b %Y")')
    tokenizer = with_chat(byte_level(*LLAMA_3_TOKENS), dated, bos_token="<|begin_of_text|>")
    assert templates.from_chat_template(tokenizer) == chats["llama-3.1"].form
    assert "Today Date: 26 Jul 2024" in str(chats["llama-3.1"].form)


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_special_tokens_written_in_a_row_stay_plain_text(chats: dict[str, Chat], model: str) -> None:
    chat = chats[model]
    added = chat.tokenizer.backend_tokenizer.get_added_tokens_decoder()
    special = {number: token.content for number, token in added.items() if token.special}
    plain = chat.ours(QUESTION, ANSWER).ids.tolist()
    text = "".join(special.values())
    forged = chat.ours(Turn("user", f"a{text}b"), Turn("assistant", f"c{text}")).ids.tolist()
    assert [number for number in forged if number in special] == [number for number in plain if number in special]


def test_a_text_that_is_cut_keeps_what_the_template_ends_in(chats: dict[str, Chat]) -> None:
    chat = chats["smollm2"]
    tokens = chat.ours(Turn("user", "abc " * 100), Turn("assistant", "abc " * 100), max_length=64)
    assert tokens.truncated
    assert len(tokens.ids) == 64
    assert chat.tokenizer.decode(tokens.ids).endswith("abc<|im_end|>\n")


# Refusals


def refused(template: str, message: str) -> None:
    tokenizer = with_chat(byte_level(*CHATML_TOKENS), template)
    with pytest.raises(ExportError, match=message):
        templates.from_chat_template(tokenizer)


def test_a_tokenizer_without_chat_template_is_refused() -> None:
    with pytest.raises(ExportError, match=r"has no chat template; give a template by hand, such as templates\.plain"):
        templates.from_chat_template(PreTrainedTokenizerFast(tokenizer_object=byte_level()))


def test_a_template_with_an_error_for_every_dialogue_is_refused() -> None:
    refused("{{ raise_exception('no') }}", "it renders no dialogue with these turns: start>user, user>response")


def test_a_template_that_changes_contents_is_refused() -> None:
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | replace('\n', ' ') }}{% endfor %}"
    refused(template, "dialogue user, assistant: it changes the text of a turn of role 'user'")


def test_a_template_that_depends_on_more_than_neighbours_is_refused() -> None:
    template = "{{ messages | length }}{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    refused(template, "dialogue user, assistant, user, assistant: at start>user it writes '4<.*elsewhere '2<")


def test_a_template_that_shows_the_last_turns_alone_is_refused() -> None:
    template = "{% for m in messages[-2:] %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    refused(template, "user, assistant, user, assistant: it moves, drops or repeats the text of a turn")


def test_a_difference_in_ids_names_the_dialogue_and_the_first_token_that_differs() -> None:
    # A capital letter is changed, which no order of turns shows and the sample texts do.
    template = "{% for m in messages %}<|im_start|>{{ m.content | replace('Name', 'name') }}<|im_end|>{% endfor %}"
    refused(template, r"dialogue user 'Name a colour of the rainbow\.'.*: token 1 is 'Name', wanted 'n'")


def test_the_file_that_the_bundle_will_hold_is_what_is_proved(tmp_path: Path) -> None:
    other = tmp_path / "tokenizer.json"
    byte_level("<|im_end|>", "<|im_start|>", "<|endoftext|>").save(str(other))
    tokenizer = with_chat(byte_level(*CHATML_TOKENS), SMOLLM2)
    with pytest.raises(ExportError, match=r"token \d+ is '<\|endoftext\|>', wanted '<\|im_end\|>'"):
        templates.from_chat_template(tokenizer, saved=other)


# The tokenizer's own forms


def bert() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=200, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def roberta() -> Tokenizer:
    tokenizer = byte_level("<s>", "<pad>", "</s>")
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def deberta() -> Tokenizer:
    tokenizer = unigram("[SEP]", "[CLS]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 1)]
    )
    return tokenizer


ENCODERS = {
    "bert": bert,
    "roberta": roberta,
    "deberta": deberta,
    "first-mark": sentence_piece,
}


def ids_of(tokenizer: Tokenizer, form: dict[str, Any], example: Example, folder: Path, *, single: bool) -> list[int]:
    tokenizer.save(str(folder / "tokenizer.json"))
    template = Template.from_json(form, "here")
    parts = document(example, template) if single else conversation(example, template)
    (tokens,) = TextEncoder(folder / "tokenizer.json").rendered([parts], max_length=10_000)
    return tokens.ids.tolist()


@pytest.mark.parametrize("name", ENCODERS)
def test_a_pair_is_encoded_as_the_tokenizer_encodes_it(name: str, tmp_path: Path) -> None:
    tokenizer = ENCODERS[name]()
    turns = (Turn("system", "Be brief."), *TALKS["two"][:3], Turn("tool", "22 degrees"), Turn("assistant", "The dough"))
    before = "\n".join(turn.text for turn in turns[:-1])
    form = templates.pair(tokenizer)
    found = ids_of(tokenizer, form, Example(turns), tmp_path, single=False)
    assert found == tokenizer.encode(before, "The dough").ids


@pytest.mark.parametrize("name", ENCODERS)
def test_a_pair_of_a_response_alone_has_an_empty_question(name: str, tmp_path: Path) -> None:
    tokenizer = ENCODERS[name]()
    found = ids_of(tokenizer, templates.pair(tokenizer), Example((ANSWER,)), tmp_path, single=False)
    assert found == tokenizer.encode("", "Green.").ids


def test_a_conversation_without_a_last_response_is_no_pair(tmp_path: Path) -> None:
    with pytest.raises(RowError, match="no place for the end after 'user'"):
        ids_of(bert(), templates.pair(bert()), Example((QUESTION, ANSWER, QUESTION)), tmp_path, single=False)


def test_a_tokenizer_that_puts_nothing_between_a_pair_is_refused() -> None:
    with pytest.raises(ExportError, match="no token between the two texts of a pair"):
        templates.pair(byte_level("<s>"))


@pytest.mark.parametrize("prefix", ["", "query: "])
@pytest.mark.parametrize("name", ENCODERS)
def test_a_document_is_encoded_as_the_tokenizer_encodes_it(name: str, prefix: str, tmp_path: Path) -> None:
    tokenizer = ENCODERS[name]()
    found = ids_of(tokenizer, templates.document(tokenizer, prefix), Example((QUESTION, ANSWER)), tmp_path, single=True)
    assert found == tokenizer.encode(f"{prefix}Name a colour.\nGreen.").ids


def test_the_token_that_begins_a_text_is_the_tokenizers() -> None:
    assert templates.begin_of_text(sentence_piece()) == "<s>"
    assert templates.begin_of_text(bert()) == "[CLS]"
    assert templates.begin_of_text(byte_level("<s>")) is None


def test_padding_that_a_tokenizer_was_saved_with_is_no_part_of_its_forms() -> None:
    tokenizer = bert()
    wanted = templates.pair(tokenizer), templates.document(tokenizer)
    tokenizer.enable_padding(length=32, direction="left")
    assert (templates.pair(tokenizer), templates.document(tokenizer)) == wanted
    assert templates.begin_of_text(tokenizer) == "[CLS]"


def test_two_tokens_before_a_text_are_refused() -> None:
    tokenizer = byte_level("<s>", "<t>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> <t> $A", pair="$A $B", special_tokens=[("<s>", 0), ("<t>", 1)]
    )
    with pytest.raises(ExportError, match=r"puts 2 tokens in front of a text \(<s> <t>\), wanted one"):
        templates.begin_of_text(tokenizer)


@pytest.mark.parametrize("make", [sentence_piece, byte_level], ids=["with-bos", "without"])
def test_plain_is_all_texts_joined_by_newlines_as_the_tokenizer_encodes_them(
    make: Callable[[], Tokenizer], tmp_path: Path
) -> None:
    tokenizer = make()
    form = templates.plain(templates.begin_of_text(tokenizer))
    turns = (Turn("system", "Be brief."), *TALKS["two"], Turn("tool", "22"), Turn("user", "Thanks"))
    found = ids_of(tokenizer, form, Example(turns), tmp_path, single=False)
    assert found == tokenizer.encode("\n".join(turn.text for turn in turns)).ids


# Forms written by hand


def text_of(form: dict[str, Any], *turns: Turn) -> str:
    parts = conversation(Example(turns), Template.from_json(form, "here"))
    return "".join(getattr(part, "text", None) or part.token for part in parts)  # type: ignore[union-attr]


def test_chatml_holds_every_role_and_closes_every_turn() -> None:
    turns = (Turn("system", "s"), QUESTION, ANSWER, Turn("tool", "t"), ANSWER)
    assert text_of(templates.chatml(), *turns) == "\n".join(
        f"<|im_start|>{turn.role}\n{turn.text}<|im_end|>" for turn in turns
    )


def test_open_assistant_has_two_voices() -> None:
    system, tool = Turn("system", "Be brief."), Turn("tool", "22")
    assert text_of(templates.open_assistant(), QUESTION, ANSWER) == (
        "<|prompter|>Name a colour.<|endoftext|><|assistant|>Green.<|endoftext|>"
    )
    assert text_of(templates.open_assistant(), system, QUESTION, ANSWER, tool, ANSWER) == (
        "<|prompter|>Be brief.\nName a colour.<|endoftext|><|assistant|>Green.<|endoftext|>"
        "<|prompter|>22<|endoftext|><|assistant|>Green.<|endoftext|>"
    )
    assert text_of(templates.open_assistant(), system, ANSWER) == (
        "<|prompter|>Be brief.<|endoftext|><|assistant|>Green.<|endoftext|>"
    )


UNIEVAL = {
    "naturalness": "question: Is this a natural response in the dialogue? </s> response: {response}",
    "coherence": "question: Is this a coherent response given the dialogue history? </s> response: {response}"
    " </s> dialogue history: {history}",
    "understandability": "question: Is this an understandable response in the dialogue? </s> response: {response}",
}
LONG_TALK = (Turn("system", "Be brief."), *TALKS["two"][:3], Turn("assistant", "Blue, and red. "))


@pytest.mark.parametrize("turns", [(QUESTION, ANSWER), LONG_TALK, (ANSWER,)], ids=["short", "long", "answer"])
@pytest.mark.parametrize("name", UNIEVAL)
def test_unievals_questions_are_those_of_its_authors(name: str, turns: tuple[Turn, ...], tmp_path: Path) -> None:
    tokenizer = unigram("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", pair=None, special_tokens=[("</s>", 1)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    history = "\n".join(turn.text for turn in turns[:-1]) + "\n\n"
    text = UNIEVAL[name].format(response=turns[-1].text, history=history)
    parts = question(Example(turns), Template.from_json(templates.unieval(), "here"), name)
    assert "".join(getattr(part, "text", "</s>") for part in parts) == f"{text}</s>"
    (tokens,) = TextEncoder(tmp_path / "tokenizer.json").rendered([parts], max_length=1024)
    theirs = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")
    assert tokens.ids.tolist() == theirs(text)["input_ids"]
    assert tokens.ids.tolist().count(1) == text.count("</s>") + 1
