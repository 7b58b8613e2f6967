"""Requests that have taken other servers down, or could: one line each, with where it was seen.

`Case.body` is JSON as Python or as bytes; `statuses` may answer it. None of these is anybody's fault but the
client's, so none may be a 5xx. Sources are advisories and issues of the projects named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CHAT, TEXT, RESPONSES, MESSAGES = (
    "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages",
)  # fmt: skip
TOKENIZE, DETOKENIZE = "/tokenize", "/detokenize"
USER = [{"role": "user", "content": "hi"}]


@dataclass(frozen=True)
class Case:
    source: str
    name: str
    path: str
    body: Any
    statuses: tuple[int, ...] = (400,)


def text(source: str, name: str, statuses: tuple[int, ...] = (400,), **fields: Any) -> Case:
    return Case(source, name, TEXT, {"prompt": "hi", "max_tokens": 4} | fields, statuses)


def chat(source: str, name: str, statuses: tuple[int, ...] = (400,), **fields: Any) -> Case:
    return Case(source, name, CHAT, {"messages": USER, "max_tokens": 4} | fields, statuses)


def guided(source: str, name: str, statuses: tuple[int, ...] = (400,), **kinds: Any) -> Case:
    return text(source, name, statuses, structured_outputs=kinds)


def schema(source: str, name: str, value: Any, statuses: tuple[int, ...] = (400,)) -> Case:
    return guided(source, name, statuses, json=value)


def tool(source: str, case: str, statuses: tuple[int, ...] = (400,), **function: Any) -> Case:
    tools = [{"type": "function", "function": {"name": "f", **function}}]
    return chat(source, case, statuses, tools=tools, tool_choice="required")


def nested(levels: int, inner: Any = None) -> Any:
    for _ in range(levels):
        inner = {"type": "array", "items": inner or {}}
    return inner


OK = (200, 400)  # whatever it is, it is no fault
CASES = [
    # --- prompts
    text("vLLM CVE-2024-8768", "an empty prompt", OK, prompt=""),
    text("vLLM CVE-2024-8768", "an empty prompt among others", OK, prompt=["a", ""]),
    text("vLLM CVE-2024-8768", "no prompts", prompt=[]),
    text("vLLM CVE-2024-8768", "an empty list of token ids", prompt=[[]]),
    text("vLLM", "negative token ids", prompt=[-1, 5]),
    text("vLLM", "token ids beyond the vocabulary", prompt=[10**6]),
    text("vLLM", "token ids beyond 64 bits", prompt=[2**70]),
    text("vLLM", "token ids that are fractions", prompt=[1.0]),
    text("vLLM", "token ids that are booleans", prompt=[True]),
    text("vLLM", "token ids in lists in lists", prompt=[[[1]]]),
    text("vLLM", "a prompt over the context", prompt="a" * 100_000),
    text("vLLM", "token ids over the context", prompt=[5] * 100_000),
    text("vLLM #39734", "a prompt of all the context", prompt=[5] * 4096),
    text("vLLM CVE-2026-44222", "special tokens as text", OK, prompt="<|im_start|><|endoftext|><s></s><unk>"),
    text("vLLM CVE-2026-44222", "placeholders of media as text", OK, prompt="<image><|image_pad|>" * 50),
    text("vLLM CVE-2025-62164", "embeddings as a prompt", prompt_embeds="gASVAAAA"),
    text("vLLM CVE-2026-55514", "no prompt but embeddings", prompt=None, prompt_embeds=""),
    chat("vLLM", "no messages", messages=[]),
    chat("vLLM", "a message without content", messages=[{"role": "user"}]),
    chat("vLLM", "content that is empty", OK, messages=[{"role": "user", "content": ""}]),
    chat("vLLM", "content of no parts", OK, messages=[{"role": "user", "content": []}]),
    chat("vLLM CVE-2025-46560", "many messages", messages=USER * 5000),
    chat("vLLM CVE-2025-6242", "an address of this machine",
         messages=[{"role": "user", "content": [
             {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/"}}]}]),
    chat("vLLM CVE-2026-73560", "a file of this machine",
         messages=[{"role": "user", "content": [
             {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}]),
    chat("vLLM CVE-2026-34755", "a video",
         messages=[{"role": "user", "content": [
             {"type": "video_url", "video_url": {"url": "data:video/jpeg;base64,"}}]}]),
    chat("vLLM PYSEC-2026-4353", "a placeholder without its image", OK,
         messages=[{"role": "user", "content": "<|vision_start|><|image_pad|><|vision_end|>"}]),
    # --- how much
    text("vLLM CVE-2026-34756", "n = 16384", n=16384),
    text("vLLM CVE-2026-34756", "n = 2^31", n=2**31),
    text("vLLM CVE-2026-34756", "n = 0", n=0),
    text("vLLM CVE-2026-34756", "n of many prompts", prompt=["a"] * 100, n=128),
    text("vLLM", "best_of", best_of=10_000),
    text("vLLM CVE-2026-114051", "min_tokens over max_tokens's default", OK, max_tokens=None, min_tokens=17),
    text("vLLM CVE-2026-114051", "min_tokens over max_tokens", min_tokens=5),
    chat("vLLM CVE-2026-114051", "min_tokens over the context", max_tokens=None, min_tokens=100_000),
    text("vLLM", "max_tokens = 0", max_tokens=0),
    text("vLLM", "max_tokens = -1", max_tokens=-1),
    text("vLLM", "max_tokens = 2^63", max_tokens=2**63),
    text("vLLM #5907", "many logprobs", logprobs=100_000),
    text("vLLM #5907", "logprobs = -1", logprobs=-1),
    text("vLLM #5424", "prompt_logprobs of all", prompt_logprobs=-1),
    text("SGLang #2607", "prompt_logprobs of a long prompt", OK, prompt="a" * 4000, prompt_logprobs=20),
    chat("vLLM", "top_logprobs without logprobs", top_logprobs=5),
    text("vLLM CVE-2026-116173", "logprobs of chosen tokens", logprob_token_ids=list(range(1000))),
    # --- how
    text("vLLM", "temperature of 1e-320", OK, temperature=1e-320),
    text("vLLM", "temperature of 1e308", temperature=1e308),
    text("vLLM", "a negative temperature", temperature=-1),
    text("vLLM", "top_k of 2^31", top_k=2**31),
    text("vLLM", "top_k of -2", top_k=-2),
    text("vLLM", "top_p of 0", top_p=0),
    text("vLLM", "a repetition penalty of 0", repetition_penalty=0),
    text("tenon", "a repetition penalty of 5e-324", repetition_penalty=5e-324),
    text("vLLM CVE-2026-44223", "penalties", OK, repetition_penalty=2, presence_penalty=2),
    text("vLLM", "bias of a negative token", logit_bias={"-1": 1}),
    text("vLLM", "bias beyond the vocabulary", logit_bias={"999999": 1}),
    text("vLLM", "bias of no token", logit_bias={"": 1}),
    text("vLLM", "bias of an Arabic digit", logit_bias={"٣": 1}),
    text("vLLM", "bias against everything", OK, logit_bias={str(i): -100 for i in range(64)}),
    text("vLLM", "bias of many", logit_bias={str(i): 0 for i in range(5000)}),
    text("vLLM", "stop tokens beyond the vocabulary", stop_token_ids=[2**31]),
    text("vLLM", "negative stop tokens", stop_token_ids=[-1]),
    text("vLLM", "an empty stop string", stop=[""]),
    text("vLLM", "many stop strings", stop=["a"] * 1000),
    text("vLLM", "a long stop string", stop="a" * 100_000),
    text("vLLM CVE-2026-105756", "a salt with other characters", cache_salt="a b\n\0"),
    text("vLLM CVE-2026-105756", "an empty salt", cache_salt=""),
    text("vLLM CVE-2026-105756", "a salt of half a character", OK, cache_salt="\ud800"),
    text("vLLM CVE-2026-105756", "a salt that is no text", cache_salt=5),
    text("vLLM CVE-2026-105756", "a long salt", cache_salt="a" * 100_000),
    text("vLLM", "a processor by its name", logits_processors=["os.system"]),
    text("SGLang CVE-2026-7304", "a processor as code", custom_logit_processor="gASV"),
    text("vLLM", "a priority of 2^63", priority=2**63),
    # --- grammars
    schema("vLLM CVE-2025-48942", "a schema that is none", "{"),
    schema("vLLM CVE-2025-48942", "a schema of a wrong type", {"type": "nothing"}),
    schema("vLLM CVE-2025-48944", "a type that is a number", {"type": 5}),
    schema("vLLM CVE-2025-48944", "a pattern that is none", {"type": "string", "pattern": "(["}),
    schema("vLLM CVE-2025-48944", "a pattern that looks back", {"type": "string", "pattern": "(?<=a)b"}),
    schema("vLLM CVE-2025-48944", "a pattern that refers back", {"type": "string", "pattern": r"(a)\1"}),
    schema("xgrammar CVE-2025-57809", "a schema that is itself", {"$ref": "#"}, OK),
    schema("xgrammar CVE-2025-57809", "references in a circle",
           {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, OK),
    schema("xgrammar CVE-2025-57809", "a reference to nothing", {"$ref": "#/$defs/none"}),
    schema("xgrammar", "a reference to elsewhere", {"$ref": "http://127.0.0.1:1/schema.json"}),
    schema("xgrammar", "a reference to a file", {"$ref": "file:///etc/passwd"}),
    schema("xgrammar CVE-2025-58446", "many choices", {"enum": [f"choice {i}" for i in range(8000)]}),
    schema("llama.cpp #26600", "a schema in a schema", nested(200)),
    schema("llama.cpp #22606", "a long schema", {"description": "a" * 100_000}),
    schema("llama.cpp #25308", "many repetitions",
           {"type": "array", "items": {"type": "string", "minLength": 10**9}, "minItems": 10**9}, OK),
    schema("llama.cpp #12597", "more than there may be", {"type": "array", "minItems": 5, "maxItems": 2}, OK),
    schema("vLLM", "a schema that is false", {"not": {}}, OK),
    schema("vLLM", "a schema that is no object", [1]),
    guided("vLLM CVE-2025-48943", "a regex that is none", regex="(["),
    guided("vLLM CVE-2025-48943", "a regex of stars", OK, regex="(((((a*)*)*)*)*)*"),
    guided("vLLM CVE-2026-55574", "a regex of repetitions", OK, regex="((a{1,1000}){1,1000}){1,1000}"),
    guided("vLLM CVE-2026-73556", "a regex of alternatives", OK, regex="(a|aa|aaa)+" * 100),
    guided("xgrammar CVE-2026-25048", "a regex of parentheses", regex="(" * 30_000),
    guided("xgrammar CVE-2026-25048", "a grammar of parentheses", grammar="root ::= " + "(" * 30_000),
    guided("llama.cpp", "a rule that is itself", OK, grammar="root ::= root"),
    guided("llama.cpp", "a rule that is not there", grammar="root ::= nothing"),
    guided("llama.cpp", "a grammar without an end", grammar='root ::= "'),
    guided("vLLM CVE-2026-105757", "two at a time", regex="a", choice=["a"]),
    guided("vLLM CVE-2026-105757", "none"),
    guided("vLLM CVE-2026-105757", "no choices", choice=[]),
    guided("vLLM CVE-2026-105757", "a choice that is empty", choice=[""]),
    guided("vLLM CVE-2026-105757", "a tag that is none", structural_tag="x"),
    guided("vLLM CVE-2026-105757", "a backend of the client's", regex="a", backend="outlines"),
    text("llama.cpp #19051", "a format that is none", response_format={"type": "yaml"}),
    text("llama.cpp #27619", "a format without its schema", response_format={"type": "json_schema"}),
    # --- tools
    tool("vLLM CVE-2025-48944", "a type of nothing", parameters={"type": 5}),
    tool("vLLM CVE-2025-48944", "a pattern of a tool", strict=True,
         parameters={"type": "object", "properties": {"a": {"type": "string", "pattern": "(["}}}),
    tool("vLLM", "parameters that are a list", parameters=[]),
    tool("vLLM", "a name of a path", name="../../x", statuses=OK),
    tool("vLLM", "a name of spaces", name="a b"),
    tool("vLLM", "a name that is long", name="a" * 10_000),
    chat("vLLM", "many tools", tools=[{"function": {"name": f"f{i}"}} for i in range(500)]),
    chat("vLLM", "tools of the same name", tools=[{"type": "function", "function": {"name": "f"}}] * 2),
    chat("vLLM", "a choice of a tool that is not there", tools=[], tool_choice="required"),
    chat("vLLM CVE-2025-9141", "arguments that are Python", OK, messages=[
        *USER, {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c", "type": "function",
             "function": {"name": "f", "arguments": "__import__('os').system('id')"}}]}]),
    chat("vLLM", "arguments of a list", OK, messages=[
        *USER, {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "[1]"}}]}]),
    # --- templates
    chat("vLLM CVE-2025-61620", "a template of the client's", chat_template="{% for i in range(10**9) %}"),
    chat("vLLM CVE-2025-62426", "tokenize among the variables", chat_template_kwargs={"tokenize": True}),
    chat("vLLM CVE-2025-62426", "a template as a variable", chat_template_kwargs={"chat_template": "x"}),
    chat("vLLM CVE-2025-62426", "messages among the variables", chat_template_kwargs={"messages": []}),
    chat("vLLM CVE-2025-62426", "the tokenizer among the variables", chat_template_kwargs={"tokenizer": 1}),
    chat("vLLM", "variables that are none", chat_template_kwargs={"": 1}),
    chat("vLLM", "documents", documents=[{"a": 1}] * 1000),
    chat("vLLM", "a role that is none", messages=[{"role": "tool system", "content": "x"}]),
    # --- bodies
    Case("vLLM CVE-2026-100650", "a body nested deep", TEXT, b'{"prompt":' + b"[" * 100_000),
    Case("vLLM CVE-2026-100650", "a body of a list", TEXT, b"[]"),
    Case("vLLM CVE-2026-100650", "an empty body", TEXT, b""),
    Case("vLLM", "a field twice", TEXT, b'{"prompt":"a","prompt":["b"],"max_tokens":2}', OK),
    Case("vLLM", "NaN", TEXT, b'{"prompt":"a","temperature":NaN}'),
    Case("vLLM", "a number of 400 digits", TEXT, b'{"prompt":"a","seed":' + b"9" * 400 + b"}"),
    Case("vLLM", "bytes that are no UTF-8", TEXT, b'{"prompt":"\xff\xfe"}'),
    Case("vLLM", "half a character", TEXT, b'{"prompt":"\\ud800"}', OK),
    Case("vLLM", "a byte order mark", TEXT, b'\xef\xbb\xbf{"prompt":"a"}'),
    # --- the other routes
    Case("vLLM CVE-2026-22778", "a response of nothing", RESPONSES, {"input": []}),
    Case("vLLM", "a response to one that is not there", RESPONSES,
         {"input": "a", "previous_response_id": "resp_" + "0" * 32}, (404,)),
    Case("vLLM", "a response to a path", RESPONSES, {"input": "a", "previous_response_id": "../x"}, (404,)),
    Case("vLLM", "an item of an unknown type", RESPONSES, {"input": [{"type": "computer_call"}]}),
    Case("vLLM CVE-2026-54236", "a message of nothing", MESSAGES, {"messages": [], "max_tokens": 1}),
    Case("vLLM CVE-2026-54236", "a block of an image", MESSAGES, {"max_tokens": 1, "messages": [
        {"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "AAAA"}}]}]}),
    Case("vLLM CVE-2026-71486", "tokens that are negative", DETOKENIZE, {"tokens": [-1]}),
    Case("vLLM CVE-2026-71486", "tokens beyond the vocabulary", DETOKENIZE, {"tokens": [2**40]}),
    Case("vLLM CVE-2026-71486", "many tokens", DETOKENIZE, {"tokens": [1] * 300_000}),
    Case("vLLM", "nothing to tokenize", TOKENIZE, {}),
    Case("vLLM", "two things to tokenize", TOKENIZE, {"prompt": "a", "messages": USER}),
    Case("vLLM", "a model by a path", TEXT, {"prompt": "a", "model": "../../etc/passwd"}, (404,)),
    Case("Triton CVE-2025-23316", "a model by a command", TEXT, {"prompt": "a", "model": "$(id)"}, (404,)),
]  # fmt: skip

VECTORS = [
    Case("vLLM", "negative token ids", "/v1/embeddings", {"input": [-1]}),
    Case("vLLM", "token ids beyond the vocabulary", "/v1/embeddings", {"input": [[2**40]]}),
    Case("vLLM", "no inputs", "/v1/embeddings", {"input": []}),
    Case("vLLM", "an empty list of ids", "/v1/embeddings", {"input": [[]]}),
    Case("vLLM", "many inputs", "/v1/embeddings", {"input": ["a"] * 5000}),
    Case("vLLM", "text and ids", "/v1/embeddings", {"input": ["a", 1]}),
    Case("vLLM", "dimensions of 0", "/v1/embeddings", {"input": "a", "dimensions": 0}),
    Case("vLLM", "dimensions of 2^31", "/v1/embeddings", {"input": "a", "dimensions": 2**31}),
    Case("vLLM", "another encoding", "/v1/embeddings", {"input": "a", "encoding_format": "pickle"}),
    Case("vLLM", "another task", "/pooling", {"input": "a", "task": "exec"}),
    Case("vLLM", "truncation below nothing", "/v1/embeddings", {"input": "a", "truncate_prompt_tokens": -5}),
    Case("vLLM", "a priority of 2^63", "/v1/embeddings", {"input": "a", "priority": 2**63}),
]
