FORMATS = ("hermes",)
REASONING_FORMATS = ("think",)
def choose_format(tokenizer, tool_format, reasoning_format):
    return None
