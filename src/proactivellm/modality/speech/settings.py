"""How the outputs of an audio encoder become source units."""

from typing import Self

from pydantic import Field, model_validator

from proactivellm.files.toml import Strict


class SpeechSettings(Strict):
    """How encoder outputs become source units.

    Attributes:
        unit: encoder outputs in a unit.
        stack: neighbouring outputs that become one embedding.
        hidden: width of the projector's hidden layer.
        block: encoder steps that attend to each other; 0 = all of a unit, 1 = strictly causal.
        lookahead: encoder steps after its block that a block sees.
    """

    unit: int = Field(default=8, ge=1)
    stack: int = Field(default=4, ge=1)
    hidden: int = Field(default=512, ge=1)
    block: int = Field(default=0, ge=0)
    lookahead: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.unit % self.stack:
            raise ValueError(f"unit = {self.unit} is no multiple of stack = {self.stack}")
        return self
