"""Errors of `model/`. Each message says what was wrong, where, and what would be right."""


class ModelError(Exception):
    """Base of everything that `model/` raises on purpose."""


class ConfigurationError(ModelError):
    """The model's configuration asks for something that is wrong or not supported."""


class CheckpointError(ModelError):
    """A checkpoint is missing, unreadable, or does not fit the model."""


class UnusableWeightError(CheckpointError):
    """Values of a weight are NaN, infinite, or too large for the device's arithmetic. `remedy`: what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message}; {remedy}")
        self.message, self.remedy = message, remedy


class TokenizerError(ModelError):
    """A tokenizer is missing, unreadable, or does not fit the model."""


class CapacityError(ModelError):
    """Something does not fit into memory."""


class StepError(ModelError):
    """The arrays of a step contradict each other or the model's limits; the runner stays usable."""


class PartedError(ModelError):
    """A step that was given up, because its ranks do not go on together: a generation has ended, or a rank is dead.
    Nothing is wrong with the step or with the runner."""
