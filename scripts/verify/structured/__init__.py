"""How structured output is judged."""
