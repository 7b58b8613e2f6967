"""A request of every protocol that uses most of its fields."""

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"name": "f", "description": "d", "parameters": SCHEMA}
GOOD = {
    "/v1/chat/completions": {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": "b", "reasoning": "r", "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]},
            {"role": "tool", "tool_call_id": "c", "content": "r"},
        ],
        "tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "auto", "max_tokens": 5,
        "reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": True}, "logprobs": True,
        "top_logprobs": 2, "stop": ["zz"], "logit_bias": {"1": 1}, "stream_options": {"include_usage": True},
        "stream": True,
    },
    "/v1/completions": {"prompt": ["a", "b"], "max_tokens": 3, "logprobs": 1, "echo": True, "n": 2},
    "/v1/responses": {
        "input": [
            {"role": "user", "content": "a"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "s"}]},
            {"type": "message", "id": "m", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": "b", "annotations": []}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "s"}]},
        ],
        "tools": [{"type": "function", **FUNCTION, "strict": False}], "tool_choice": "none",
        "instructions": "i", "max_output_tokens": 5, "temperature": 0.5,
        "text": {"format": {"type": "text"}, "verbosity": "low"},
        "reasoning": {"effort": "high", "summary": "auto"}, "metadata": {"a": "b"}, "top_logprobs": 1,
        "include": ["message.output_text.logprobs"], "store": True, "background": False, "truncation": "auto",
        "stream": False,
    },
    "/v1/messages": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "x"}}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "t", "signature": "s"},
                {"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "r"}]},
        ],
        "system": [{"type": "text", "text": "s"}], "max_tokens": 50, "stop_sequences": ["zz"], "top_k": 3,
        "tools": [{"name": "f", "description": "d", "input_schema": SCHEMA}], "tool_choice": {"type": "auto"},
        "thinking": {"type": "enabled", "budget_tokens": 20}, "metadata": {"user_id": "u"}, "stream": True,
        "output_config": {"effort": "high"},
    },
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "a"}], "system": "s"},
    "/tokenize": {"messages": [{"role": "user", "content": "a"}], "return_token_strs": True},
    "/detokenize": {"tokens": [1, 2, 3]},
}  # fmt: skip
