"""Chat templates of the kinds that are met: what stands before, after and between turns."""

from tests.models import CHAT_TEMPLATE

_LLAMA_2 = (  # a system prompt inside the first turn, no generation prompt
    "{% for m in messages %}{% if m['role'] == 'user' %}<s>[INST] {% if loop.first %}<<SYS>>\n"
    "Be kind.\n<</SYS>>\n\n{% endif %}{{ m['content'] }} [/INST]{% else %} {{ m['content'] }} "
    "<|end|>{% endif %}{% endfor %}"
)
_QWEN = (  # a default system prompt, if none is given
    "{% if messages[0]['role'] != 'system' %}<s>system\nYou help.<|end|>\n{% endif %}"
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
_GEMMA = (  # its beginning once, the answer's role under another name, content trimmed
    "{{ bos_token }}{% for m in messages %}<|end|>{{ 'model' if m['role'] == 'assistant' else "
    "m['role'] }}\n{{ m['content'] | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|end|>model\n{% endif %}"
)
CHATS = {"plain": CHAT_TEMPLATE, "llama 2": _LLAMA_2, "qwen": _QWEN, "gemma": _GEMMA}
