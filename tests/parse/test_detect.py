# ruff: noqa: E501  (a table reads better with one row per line)
"""Formats are told apart by what chat templates hold. The templates here are sketches of the published ones."""

from __future__ import annotations

import pytest

from tenon.errors import ConfigError
from tenon.parse import formats
from tenon.parse.detect import detect, resolve
from tenon.parse.formats.deepseek_v3 import CLOSE, OPEN, SECTION, SEPARATOR

HERMES = 'return <tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
THINK = "{{- '<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content }}"
CHATML = "{{- '<|im_start|>assistant\\n' }}"
DEEPSEEK = f"{{{{'<｜Assistant｜>{SECTION[0]}{OPEN}' + tool['type'] + '{SEPARATOR}' + name + %s + '{CLOSE}{SECTION[1]}'}}}}"

TEMPLATES = [
    ("plain", "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"),
    ("hermes", HERMES + CHATML),
    ("qwen3", HERMES + THINK + CHATML + "{%- if enable_thinking is defined %}{{- '<think>\\n\\n</think>\\n\\n' }}{% endif %}"),
    ("qwq", HERMES + THINK + "{{- '<|im_start|>assistant\\n<think>\\n' }}"),
    ("qwen3_next", HERMES + THINK + "{% set ns.last_query_index %}{{- '<|im_start|>assistant\\n<think>\\n' }}"),
    ("qwen3_next", HERMES + THINK + "<|vision_start|>{{- '<|im_start|>assistant\\n<think>\\n' }}"),
    ("qwen3_coder", "<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\n</tool_call>" + CHATML),
    ("qwen3_coder", "<tool_call>\n<function=f>\n<parameter=p>\n</tool_call> arguments" + THINK + "assistant\\n<think>\\n"),
    ("deepseek_v3", DEEPSEEK % "'\\n```json\\n' + arguments + '\\n```'"),
    ("deepseek_r1", DEEPSEEK % "'\\n```json\\n' + arguments + '\\n```'" + "content.split('</think>')[-1]"),
    ("deepseek_r1", "{{'<｜Assistant｜>'}}{% if '</think>' in content %}{{'<｜Assistant｜><think>\\n'}}"),
    ("deepseek_v31", DEEPSEEK % "arguments" + "{%- if not thinking %}</think>{% else %}<think>"),
    ("deepseek_v32", "<{{ dsml_token }}function_calls>{% set dsml_token = '｜DSML｜' %}</think><｜Assistant｜>"),
    ("ernie45", "{{ '<|begin_of_sentence|>' }}" + HERMES + THINK),
    ("ernie45", "{{ '<|begin_of_sentence|>' }}Assistant: {{ '<think>\\n\\n</think>\\n\\n' }}"),
    ("ernie_x1", HERMES + THINK + "<response>\\n' + content + '\\n</response>\\n"),
    ("llama3_json", "<|start_header_id|>assistant<|end_header_id|> Respond in the format {\"name\": f, \"parameters\": {}}"),
    ("llama3_json", "{{ '<|python_tag|>' + tool_call.name + '.call(' }}"),
    ("llama3_pythonic", "<|start_header_id|> [func_name1(params_name1=params_value1), func_name2(params)]"),
    ("llama4_pythonic", "<|header_start|>assistant<|header_end|> [func_name1(param1=value1), func_name2(...)]"),
    ("mistral", "[AVAILABLE_TOOLS][/AVAILABLE_TOOLS][INST][/INST][TOOL_CALLS]"),
    ("mistral", "[SYSTEM_PROMPT]...[THINK]...[/THINK][INST]"),
    ("gpt_oss", "{{- '<|start|>assistant<|channel|>analysis<|message|>' + thinking + '<|end|>' }} arguments"),
    ("glm45", "<tool_call>{function-name}\n<arg_key>{k}</arg_key>\n<arg_value>{v}</arg_value>\n</tool_call><think></think>"),
    ("kimi_k2", "<|im_assistant|>assistant<|im_middle|><|tool_calls_section_begin|><|tool_call_begin|><think>"),
    ("kimi_k2", "{{ '<|im_assistant|>assistant<|im_middle|>' }}"),
    ("minicpm", "<|thought_start|>\\n<|thought_end|>\\n<|tool_call_start|>\\n```python\\n<|tool_call_end|>"),
    ("minicpm", '<function name="f"><param name="p">v</param></function>' + THINK),
    ("longcat", "<longcat_tool_call>\\n<longcat_arg_key><longcat_arg_value> arguments <tool_call></tool_call>"),
    ("granite", "<|start_of_role|>assistant<|end_of_role|><|tool_call|>"),
    ("granite", "<|start_of_role|>assistant<|end_of_role|>" + HERMES + THINK),
    ("gemma4", "<|turn>model\\n<|channel>thought\\n<channel|><|tool_call>call:"),
    ("minimax_m2", "<minimax:tool_call>\n<invoke name=\"x\">\n</minimax:tool_call>]~b]ai\\n<think>\\n</think>"),
    ("seed_oss", "<seed:tool_call>\n<function=f>\n<parameter=p>v</parameter>\n</function>\n</seed:tool_call><seed:think>"),
    ("phi4_mini", "<|tool|>{{ tools }}<|/tool|><|assistant|>"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "template"), TEMPLATES)
def test_detect(name, template):
    assert detect(template) == name


def test_every_format_can_be_detected():
    assert {name for name, _ in TEMPLATES} == set(formats.names())


def test_no_template():
    assert detect(None) == detect("") == "plain"


def test_resolve():
    assert resolve("auto", TEMPLATES[1][1]) == "hermes"
    assert resolve("glm45", None) == "glm45"
    with pytest.raises(ConfigError, match="auto, or one of deepseek_r1"):
        resolve("glm", None)
