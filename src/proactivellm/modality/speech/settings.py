"""How the outputs of an audio encoder become source units."""

from typing import Self

from pydantic import Field, model_validator

from proactivellm.files.toml import Strict
from proactivellm.files.values import Count


class SpeechSettings(Strict):
    """How encoder outputs become source units."""

    unit: int = Field(default=8, ge=1)  # encoder outputs in a unit
    stack: int = Field(default=4, ge=1)  # neighbouring outputs that become one embedding
    hidden: int = Field(default=512, ge=1)  # width of the projector's hidden layer
    # Encoder steps that attend to each other; 0 = all of a unit, 1 = strictly causal.
    block: int = Field(default=0, ge=0)
    lookahead: int = Field(default=0, ge=0)  # encoder steps after its block that a block sees
    # All blocks that the model can be run with, of which training draws; none = `block` alone.
    blocks: tuple[Count, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.unit % self.stack:
            raise ValueError(f"unit = {self.unit} is no multiple of stack = {self.stack}")
        if self.blocks and self.block not in self.blocks:
            raise ValueError(f"block = {self.block} is not among blocks = {list(self.blocks)}")
        return self
