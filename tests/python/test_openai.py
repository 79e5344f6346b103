"""The official OpenAI client against a real `forebay serve` with a real model."""

import math
import os
import re
import signal
import subprocess

import openai
import pytest

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def start_server(*flags):
    """A server on a free port: the process and its address, as its first lines tell."""
    command = [os.environ["FOREBAY_BIN"], "serve", os.environ["FOREBAY_TEST_MODEL"]]
    command += ["--served-model-name", "smollm2-135m", "--port", "0", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if address := re.search(r"http://127\.0\.0\.1:\d+", line):
            return process, address.group()
    raise AssertionError(f"the server ended with {process.wait()} before it listened")


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def client(request):
    process, address = start_server("--workers", str(request.param))
    # No retries: an answer that is an error is to be seen, not tried again.
    yield openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0, "Ctrl-C drains and exits 0"


def chat(client, **fields):
    fields = {"messages": QUESTION, "model": "smollm2-135m", "temperature": 0} | fields
    return client.chat.completions.create(**fields)


def complete(client, **fields):
    fields = {"prompt": "One, two, three,", "model": "smollm2-135m", "temperature": 0} | fields
    return client.completions.create(**fields)


def test_models(client):
    assert [model.id for model in client.models.list()] == ["smollm2-135m"]
    assert client.models.retrieve("smollm2-135m").owned_by == "forebay"


def test_chat_answers(client):
    answer = chat(client)
    choice = answer.choices[0]
    assert "Paris" in choice.message.content
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "stop"
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_repeated_prompt_is_cached(client):
    messages = [{"role": "user", "content": "Count the words of this sentence, please. " * 8}]
    first, second = [chat(client, messages=messages, max_tokens=4) for _ in range(2)]
    assert second.choices[0].message.content == first.choices[0].message.content
    prompt_tokens = second.usage.prompt_tokens
    cached_tokens = second.usage.prompt_tokens_details.cached_tokens
    assert prompt_tokens - 16 <= cached_tokens < prompt_tokens


def test_a_stream_says_what_the_answer_says(client):
    whole = chat(client)
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    deltas = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(deltas) == whole.choices[0].message.content
    assert len([delta for delta in deltas if delta]) > 3, "it came in pieces"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_can_be_left(client):
    with chat(client, stream=True, max_completion_tokens=4000) as stream:
        next(iter(stream))
    assert "Paris" in chat(client).choices[0].message.content


def test_completions(client):
    answer = complete(client, max_tokens=8)
    assert answer.object == "text_completion"
    assert "four" in answer.choices[0].text
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 8
    texts = [chunk.choices[0].text for chunk in complete(client, max_tokens=8, stream=True)]
    assert "".join(texts) == answer.choices[0].text


def test_echo(client):
    alone = complete(client, max_tokens=8, seed=1).choices[0].text
    fields = {"max_tokens": 8, "seed": 1, "echo": True, "user": "u"}
    fields["extra_body"] = {"metadata": {"a": "b"}}
    echoed = complete(client, **fields).choices[0].text
    assert echoed.endswith(alone) and len(echoed) > len(alone)
    texts = [chunk.choices[0].text for chunk in complete(client, stream=True, **fields)]
    assert "".join(texts) == echoed


def test_choices(client):
    fields = {"n": 3, "temperature": 1, "seed": 7, "max_completion_tokens": 12}
    answer = chat(client, **fields)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    texts = [choice.message.content for choice in answer.choices]
    assert len(set(texts)) > 1
    assert texts == [choice.message.content for choice in chat(client, **fields).choices]
    streamed = ["", "", ""]
    for chunk in chat(client, stream=True, **fields):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts


def test_seeds(client):
    def draw(seed):
        fields = {"seed": seed, "temperature": 1.5, "max_completion_tokens": 12}
        return chat(client, **fields).choices[0].message.content

    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in range(4)}) > 1


def test_stop(client):
    answer = complete(client, max_tokens=40, stop=[" six", "unheard of"])
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].text.endswith("five,")
    streamed = complete(client, max_tokens=40, stop=" six", stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == answer.choices[0].text


def test_logprobs_of_chat(client):
    choice = chat(client, logprobs=True, top_logprobs=3).choices[0]
    tokens = choice.logprobs.content
    assert "".join(token.token for token in tokens) == choice.message.content
    for token in tokens:
        assert bytes(token.bytes).decode() == token.token
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].token == token.token, "greedy takes the most probable"
        assert token.logprob <= 0
        assert sum(math.exp(top.logprob) for top in token.top_logprobs) <= 1 + 1e-4


def test_logprobs_of_completions(client):
    logprobs = (choice := complete(client, max_tokens=5, logprobs=2).choices[0]).logprobs
    assert "".join(logprobs.tokens) == choice.text
    assert len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 5
    ends = zip(logprobs.text_offset, logprobs.tokens)
    assert all(choice.text[offset:].startswith(token) for offset, token in ends)


def test_logit_bias(client):
    # Token ids in, so that no tokenizer is needed: whatever 7042 is, it is all that comes.
    favoured = complete(client, prompt=[504, 3575], max_tokens=3, logit_bias={"7042": 100})
    assert favoured.choices[0].text == " Paris Paris Paris"


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        ({"model": "unheard-of"}, openai.NotFoundError, "model"),
        ({"temperature": -1}, openai.BadRequestError, "temperature"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"n": 0}, openai.BadRequestError, "n"),
        ({"extra_body": {"max_token": 1}}, openai.BadRequestError, "max_token"),
        ({"tools": [{"type": "function"}]}, openai.BadRequestError, "tools"),
        ({"stream": True, "top_p": 7}, openai.BadRequestError, "top_p"),
    ],
)
def test_errors(client, fields, error, param):
    with pytest.raises(error) as raised:
        chat(client, **fields)
    assert raised.value.param == param
    assert param in raised.value.message


def test_a_budget_beyond_the_context(client):
    with pytest.raises(openai.BadRequestError) as raised:
        chat(client, max_completion_tokens=100_000)
    assert raised.value.code == "context_length_exceeded"
    assert "8192" in raised.value.message
