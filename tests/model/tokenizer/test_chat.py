"""Chat templates: known prompts, the sandbox, and transformers' rendering where that is installed."""

from __future__ import annotations

import contextlib
import datetime
import json
import shutil
from pathlib import Path

import pytest

from model.errors import TokenizerError
from model.tokenizer import ChatTemplateError, load_tokenizer
from model.tokenizer.chat import ChatTemplate

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
CONVERSATION = [
    {"role": "system", "content": " Be <kind> & brief. "},
    {"role": "user", "content": "Hé 😀"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "More"},
]

CHATML = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

LLAMA_3 = """\
{% set loop_messages = messages %}
{% for message in loop_messages %}
{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] \
| trim + '<|eot_id|>' %}
{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}
{{- content }}{% endfor %}
{% if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}
"""

LLAMA_2 = """\
{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}\
{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}\
{% set system_message = false %}{% endif %}{% for message in loop_messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% if loop.index0 == 0 and system_message != false %}\
{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}\
{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}\
{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}\
{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}\
"""

FEATURES = """\
{%- for message in messages %}
{%- if loop.index > 3 %}{% break %}{% endif %}
{%- generation %}{{ message.content | tojson }}{% endgeneration %}
{{ message | tojson(indent=2) }}
{%- endfor %}
{%- if tools is defined and tools is none %} no tools{% endif %}
{%- set ns = namespace(found=false) %}{% set ns.found = true %}{{ ns.found }}
"""

TEMPLATES = {"chatml": CHATML, "llama 3": LLAMA_3, "llama 2": LLAMA_2, "features": FEATURES}


def render(source, messages=CONVERSATION, *, add_generation_prompt=True):
    template = ChatTemplate(source, TOKENS, "test")
    return template.render(messages, add_generation_prompt=add_generation_prompt)


def test_chatml():
    assert render(CHATML, CONVERSATION[1:]) == (
        "<|im_start|>user\nHé 😀<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
        "<|im_start|>user\nMore<|im_end|>\n<|im_start|>assistant\n"
    )


def test_llama_3():
    assert render(LLAMA_3, CONVERSATION[:2]) == (
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe <kind> & brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHé 😀<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_llama_2():
    assert render(LLAMA_2, CONVERSATION) == (
        "<s>[INST] <<SYS>>\n Be <kind> & brief. \n<</SYS>>\n\nHé 😀 [/INST] Hello. </s><s>[INST] More [/INST]"
    )


def test_without_generation_prompt():
    assert render(CHATML, CONVERSATION[1:2], add_generation_prompt=False) == ("<|im_start|>user\nHé 😀<|im_end|>\n")


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_transformers_renders_the_same(name, add_generation_prompt):
    utilities = pytest.importorskip("transformers.utils.chat_template_utils")
    rendered, _ = utilities.render_jinja_template(
        conversations=[CONVERSATION],
        chat_template=TEMPLATES[name],
        add_generation_prompt=add_generation_prompt,
        **TOKENS,
    )
    assert render(TEMPLATES[name], add_generation_prompt=add_generation_prompt) == rendered[0]


@pytest.mark.parametrize("name", ["chatml", "llama 3", "llama 2"])
@pytest.mark.parametrize("content", ["To be", "  To be  ", "To be\n", "Hello.", "", "a\n\n b "])
@pytest.mark.filterwarnings("ignore")
def test_continuing_the_last_message_as_transformers_does(name, content):
    utilities = pytest.importorskip("transformers.utils.chat_template_utils")
    messages = [*CONVERSATION, {"role": "assistant", "content": content}]
    rendered, _ = utilities.render_jinja_template(
        conversations=[messages], chat_template=TEMPLATES[name], continue_final_message=True, **TOKENS
    )
    template = ChatTemplate(TEMPLATES[name], TOKENS, "test")
    assert template.render(messages, add_generation_prompt=False, continue_final_message=True) == rendered[0]
    assert messages[-1]["content"] == content


def test_a_message_that_is_not_shown_can_not_be_continued():
    template = ChatTemplate("{{ messages[0].content }}", TOKENS, "test")
    with pytest.raises(ChatTemplateError, match="can't be continued"):
        template.render(CONVERSATION, add_generation_prompt=False, continue_final_message=True)


def test_variables_of_ones_own():
    template = ChatTemplate("{{ mood }}{{ bos_token }}{{ messages | length }}", TOKENS, "test")
    variables = {"mood": "glad", "bos_token": "forged", "messages": []}
    assert template.render(CONVERSATION, add_generation_prompt=True, variables=variables) == "glad<s>4"
    assert {"bos_token", "messages", "tools"} <= template.own_variables


def test_tojson_does_not_escape():
    assert render("{{ messages[0] | tojson }}", [{"role": "user", "content": "<é> & '"}]) == (
        '{"role": "user", "content": "<é> & \'"}'
    )


def test_strftime_now():
    year = datetime.datetime.now().astimezone().year
    assert render("{{ strftime_now('%Y') }}") in {str(year), str(year - 1)}


def test_what_a_client_wrote_is_shown_as_one_short_line():
    source = "{{ raise_exception('unknown role ' ~ messages[0].role) }}{{ messages[0].role }}"
    for role in ("x\ny\x1b[31m\u2028z", "ring buffer " * 400):
        with pytest.raises(ChatTemplateError, match="unknown role") as caught:
            render(source, [{"role": role, "content": ""}])
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300


def test_a_refusal_of_the_template_is_the_client_s_fault():
    with pytest.raises(ChatTemplateError, match="roles must alternate"):
        render(LLAMA_2, [{"role": "assistant", "content": "first"}])


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        (["hello"], r"messages\[0\] must be an object with a string 'role'"),
        ([{"content": "x"}], r"messages\[0\] must be an object with a string 'role'"),
        ([{"role": 3, "content": "x"}], r"messages\[0\] must be an object with a string 'role'"),
        ([*CONVERSATION, {"role": "user"}], r"messages\[4\] has no 'content'"),
        ([{"role": "user", "content": None}], "cannot render the messages"),
        ([{"role": "user", "content": {"text": "x"}}], "cannot render the messages"),
    ],
)
def test_unusable_messages(messages, match):
    with pytest.raises(ChatTemplateError, match=match):
        render(CHATML, messages)


@pytest.mark.parametrize("parameters", [{"properties": 5}, {"properties": ["a"]}, {}, [], None, 5])
@pytest.mark.parametrize("said", ["|dictsort", "|items|list", ".items()", "|tojson|length", "['a']", "|first"])
def test_tools_that_a_template_cannot_show_are_the_clients_fault(said, parameters):
    template = ChatTemplate(f"{{{{ tools[0].function.parameters.properties{said} }}}}", TOKENS, "test")
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    with contextlib.suppress(ChatTemplateError):  # the only error that may come
        assert isinstance(template.render(CONVERSATION, add_generation_prompt=True, tools=tools), str)


@pytest.mark.parametrize(
    "hostile",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='x') }}",
        "{% for i in range(10000000) %}{% endfor %}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_the_sandbox_holds(hostile):
    with pytest.raises(ChatTemplateError):
        render(hostile)
    assert CONVERSATION[0]["role"] == "system"


def test_the_sandbox_hides_internals():
    assert render("{{ raise_exception.__globals__ }}{{ messages.__class__ }}") == ""


def test_messages_are_not_templates():
    hostile = [{"role": "user", "content": "{{ 7 * 7 }}{% raw %}"}]
    assert "{{ 7 * 7 }}{% raw %}" in render(CHATML, hostile)


@pytest.mark.parametrize("kind", ["byte_level", "llama"])
def test_a_tokenizer_with_a_template(kind, tokenizer_files, tmp_path):
    shutil.copy(tokenizer_files[kind], tmp_path)
    config = {"chat_template": LLAMA_2, "bos_token": "<s>", "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path)
    prompt = tokenizer.apply_chat_template(CONVERSATION)
    ids = tokenizer.encode(prompt, add_special=False)
    assert prompt.startswith("<s>[INST]")
    assert (ids[0], ids.count(1), ids.count(2)) == (1, 2, 1)


def test_named_templates_and_the_separate_file(tokenizer_files, tmp_path):
    shutil.copy(tokenizer_files["byte_level"], tmp_path)
    for_tools = "{{ tools | length }} tools: {{ messages[-1].content }}"
    named = [
        {"name": "tool_use", "template": for_tools},
        {"name": "default", "template": "d{{ messages[-1].content }}"},
    ]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    tokenizer, tools = load_tokenizer(tmp_path), [{"type": "function", "function": {"name": "f"}}]
    assert tokenizer.apply_chat_template(CONVERSATION[:2]) == "dHé 😀"
    assert tokenizer.apply_chat_template(CONVERSATION[:2], tools=tools) == "1 tools: Hé 😀"
    assert tokenizer.template_asks_for("tools")
    (tmp_path / "chat_template.jinja").write_text("from the file: {{ messages[-1].content }}")
    assert load_tokenizer(tmp_path).apply_chat_template(CONVERSATION[:2], tools=tools) == "from the file: Hé 😀"
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text(for_tools)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.apply_chat_template(CONVERSATION[:2]) == "from the file: Hé 😀"
    assert tokenizer.apply_chat_template(CONVERSATION[:2], tools=tools) == "1 tools: Hé 😀"


def test_a_tokenizer_without_a_template_says_what_to_add(tokenizer_files):
    with pytest.raises(TokenizerError, match="has no chat template; add 'chat_template'"):
        load_tokenizer(tokenizer_files["byte_level"]).apply_chat_template(CONVERSATION)


def test_a_file_in_place_of_the_tokenizer_s_own_template(tokenizer_files, tmp_path):
    """A bare tokenizer.model says nothing of names; BOS and EOS are written all the same."""
    (tmp_path / "mine.jinja").write_text("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}")
    tokenizer = load_tokenizer(tokenizer_files["llama"], chat_template=tmp_path / "mine.jinja")
    assert tokenizer.apply_chat_template(CONVERSATION[1:]) == "<s>Hé 😀</s>"
    (tmp_path / "mine.jinja").write_text("{% if %}")
    with pytest.raises(TokenizerError, match=r"the chat template in mine.jinja is not valid Jinja, line 1"):
        load_tokenizer(tokenizer_files["llama"], chat_template=tmp_path / "mine.jinja")


SHIPPED = (Path(__file__).parents[3] / "configs" / "chat_templates" / "llama2.jinja").read_text()


@pytest.mark.parametrize("messages", [CONVERSATION, CONVERSATION[1:], CONVERSATION[:3]])
def test_the_shipped_template_of_llama_2(messages):
    """It says the same as the one that comes with the model's files."""
    assert render(SHIPPED, messages) == render(LLAMA_2, messages)


def test_the_shipped_template_refuses_what_the_model_never_saw():
    for roles in (["assistant"], ["user", "user"], ["user", "system"]):
        with pytest.raises(ChatTemplateError, match="must take turns"):
            render(SHIPPED, [{"role": role, "content": "x"} for role in roles])


PARTS = "{% for m in messages %}[{{ m['role'] }}]{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{% endfor %}"
SAID = [{"role": "user", "content": "Hi"}]


def test_a_template_that_loops_over_parts_gets_parts():
    template = ChatTemplate(PARTS, {}, "test")
    template.find_form()
    assert template.render(SAID, add_generation_prompt=False) == "[user]Hi"
    assert template.render(SAID, add_generation_prompt=False, continue_final_message=True) == "[user]Hi"


def test_a_template_that_takes_both_gets_strings():
    both = "{% if messages[0].content is string %}string {{ messages[0].content }}{% else %}parts{% endif %}"
    template = ChatTemplate(both, {}, "test")
    template.find_form()
    assert template.render(SAID, add_generation_prompt=False) == "string Hi"


@pytest.mark.parametrize("source", ["You are a bot.", "{{ messages[0].text }}", "{{ messages[0].content.nothing }}"])
def test_a_template_that_loses_the_user_s_text_is_refused(source):
    with pytest.raises(TokenizerError, match="the chat template in its file loses what users say"):
        ChatTemplate(source, {}, "its file").find_form()


def test_of_a_template_that_refuses_short_conversations_nothing_is_known():
    template = ChatTemplate("{{ raise_exception('only tools') }}", {}, "test")
    template.find_form()


@pytest.mark.parametrize(
    ("source", "role"),
    [("{{ messages[0].role }} {{ messages[0].content }}", "system"),
     ("{% if messages[0].role == 'developer' %}{% endif %}{{ messages[0].role }} {{ messages[0].content }}",
      "developer")],
)  # fmt: skip
def test_developer_is_the_system_unless_the_template_knows_it(source, role):
    template = ChatTemplate(source, {}, "test")
    template.find_form()
    said = [{"role": "developer", "content": "x"}]
    assert template.render(said, add_generation_prompt=False) == f"{role} x"


def test_what_a_template_asks_for():
    source = "{% set x = 1 %}{{ messages[0].content }}{{ reasoning_effort }}{{ x }}"
    template = ChatTemplate(source, {}, "test")
    assert {"messages", "reasoning_effort"} <= template.asked_for
    assert "x" not in template.asked_for
