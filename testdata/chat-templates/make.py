"""Renders conversations with a tokenizer_config.json's chat template, as transformers does.

    python make.py path/to/tokenizer_config.json > name.json      (needs jinja2 3.1)

The environment below is that of transformers.utils.chat_template_utils.
"""

import json
import sys
from datetime import datetime, timezone

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime(2024, 7, 26, 13, 0, 0, tzinfo=timezone.utc)


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(
            x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


USER = {"role": "user", "content": "What's the weather in Zürich? <b>&amp;</b>"}
SYSTEM = {"role": "system", "content": "You are terse.\n"}
ANSWER = {"role": "assistant", "content": "  Sunny — 21 °C. 🙂\n"}
THOUGHT = {"role": "assistant", "content": "<think>\nHot?\n</think>\n\nSunny."}
REASONED = {"role": "assistant", "content": "Sunny.", "reasoning_content": "\nHot?\n"}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "call_1",
            "type": "function",
            "function": {
                "name": "weather",
                "arguments": {"city": "Zürich", "days": [1, 2.5, 1e20], "exact": True, "unit": None},
            },
        }
    ],
}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": '{"sky": "clear"}'}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": 'The "weather" of a city\nby day',
        "parameters": {
            "type": "object",
            "required": ["city"],
            "properties": {"city": {"type": "string"}, "days": {"type": "array", "items": {}}},
        },
    },
}

CASES = [
    {"messages": [USER]},
    {"messages": [SYSTEM, USER]},
    {"messages": [SYSTEM, USER, ANSWER, USER]},
    {"messages": [USER, THOUGHT, USER]},
    {"messages": [USER, REASONED]},
    {"messages": [USER], "kwargs": {"enable_thinking": False}},
    {"messages": [USER], "add_generation_prompt": False},
    {"messages": [USER], "tools": [TOOL]},
    {"messages": [SYSTEM, USER, CALL, RESULT], "tools": [TOOL, TOOL]},
    {"messages": [USER, CALL, RESULT, ANSWER, USER], "tools": [TOOL]},
]


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        config = json.load(file)

    def text(name):
        token = config.get(name)
        return token["content"] if isinstance(token, dict) else token

    special = {name: text(name) for name in ("bos_token", "eos_token") if text(name)}
    template = environment().from_string(config["chat_template"])
    cases = []
    for case in CASES:
        names = dict(tools=case.get("tools"), documents=None, messages=case["messages"])
        names["add_generation_prompt"] = case.get("add_generation_prompt", True)
        try:
            result = {"prompt": template.render(**names, **special, **case.get("kwargs", {}))}
        except jinja2.exceptions.TemplateError as error:
            result = {"raised": str(error)}
        cases.append({**case, **result})
    out = {"template": config["chat_template"], **special, "now": int(NOW.timestamp()), "cases": cases}
    json.dump(out, sys.stdout, ensure_ascii=False, indent=1)
    print()


main()
