"""Mistakes in a configuration: collected, then reported all at once."""

from __future__ import annotations

from dataclasses import dataclass

_SHOWN = 100  # problems that an error spells out


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake. `str` of it is a line such as ``demo.yaml:12: pa_config.block_size is 0; …``."""

    source: str
    """The file, or the ``--set`` option."""
    line: int
    """From 1; 0 where there is no line."""
    message: str
    """The value that was found, its key, and a value that would be right."""
    key: str = ""
    """Dotted, as in ``pa_config.block_size``; empty for the file as a whole."""

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line else self.source
        # a path may have any bytes, and what is wrong with it must be printable
        return f"{place}: {self.message}".encode(errors="backslashreplace").decode()


class ConfigurationError(Exception):
    """A configuration cannot be used; `problems` has every mistake that was found, in the order of the file."""

    exit_code = 2
    """Of a command that cannot start for this reason."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__(self.problems)

    def __reduce__(self) -> tuple[type[ConfigurationError], tuple[list[Problem]]]:
        return type(self), (list(self.problems),)

    def __str__(self) -> str:
        count = len(self.problems)
        title = f"{count} mistakes" if count > 1 else "a mistake"
        lines = [f"{title} in the configuration:", *(f"  {problem}" for problem in self.problems[:_SHOWN])]
        return "\n".join(lines + [f"  … and {count - _SHOWN} more"] * (count > _SHOWN))
