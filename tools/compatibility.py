"""Which causal LMs of transformers can stream: each, tiny and random, is tried against the law.

    python tools/compatibility.py docs/guide/compatibility.md
    python tools/compatibility.py --only qwen3,mamba

Writes the page of the table. Every model type has a process of its own, which may take LIMIT_S
seconds and LIMIT_GIB of memory, so that one that crashes or hangs costs its row and no more. Some
minutes on one core.
"""

import argparse
import multiprocessing
import re
import resource
import sys
import time
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.law import check_law
from tiny_config import tiny_config
from tokenizers import Tokenizer, models

LIMIT_S = 120
LIMIT_GIB = 24  # of address space, most of which is the libraries'
NUM_SOURCE, NUM_TARGET = 128, 16  # tokens of the stream

# What the library says of a model that it refuses, and what a reader of the table is told.
REASONS = {
    r"layers of type ([\w, ]+):": r"layers of a kind that cannot stream: \1",
    r"no position ids": "no position ids",
    r"no keys and values per token": "no keys and values per token",
    r"encoder-decoder": "encoder-decoder",
    r"in their order of arrival": "counts tokens in their order of arrival",
    r"neither all earlier positions nor": "attends to more than earlier positions",
    r"more than a causal decoder": "more than a decoder and an output layer",
    r"several stacks of layers": "several stacks of layers in place of a decoder",
    r"does not follow": "does not follow the positions, masks or cache that it is given",
    r"needs a package:[\s\S]*requires the (\S+) library": r"not tried: needs the package \1",
    r"no tiny configuration": "not tried: no tiny configuration can be made of it",
    r"cannot stream: (\w+Error)": r"fails when it is given positions and embeddings (\1)",
}
PAGE = """# Which models can stream

Every causal LM of transformers {version}, tiny and with random weights, was tried against the law:
a stream of {source} source and {target} target tokens, fed token by token, has to have the logits
of one masked forward. {obeying} of {all} model types obey. The others are refused when they are
loaded, with the reason. `make compatibility` makes this page.

"Yes" says nothing of how well a model streams before it is trained to. A setting may change the
answer: of Llama 4 and of models with dynamic rotary scaling the error says which one; hybrids such
as GraniteMoeHybrid obey without their recurrent layers.

| model type | class | streams | why not |
| --- | --- | --- | --- |
{rows}
"""


class Row(NamedTuple):
    """One model type of the table."""

    model_type: str
    class_name: str
    reason: str  # why not; empty if it obeys

    @property
    def answer(self) -> str:
        """In the table."""
        tried, why = (
            not self.reason.startswith("not tried"),
            self.reason.removeprefix("not tried: "),
        )
        answer = ("no" if self.reason else "yes") if tried else "not tried"
        return f"| `{self.model_type}` | {self.class_name} | {answer} | {why} |"


def random_model(model_type: str) -> PreTrainedModel:
    """A tiny model with weights so wide that a wrong mask or position shows in its logits."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        tiny_config(model_type), dtype=torch.float32, trust_remote_code=False
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape)
            parameter.copy_(parameter + 0.2 * noise if parameter.dim() == 1 else 0.25 * noise)
    return model


def reason_against(model_type: str) -> str:
    """Why models of a type cannot stream; empty if they can."""
    try:
        model = random_model(model_type)
    except ImportError as error:
        return f"needs a package: {error}"
    except Exception as error:
        return f"no tiny configuration: {type(error).__name__}: {error}"
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), eos_token="</s>")
    try:
        check_law(StreamingCausalLM(model, words), NUM_SOURCE, NUM_TARGET)
    except ValueError as error:
        return str(error)
    return ""


def in_few_words(message: str) -> str:
    """What a message of the library means for a reader of the table."""
    for pattern, words in REASONS.items():
        if found := re.search(pattern, message):
            return found.expand(words)
    return " ".join(message.split())


def _answer(model_type: str, pipe: Connection) -> None:
    limit = LIMIT_GIB << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        pipe.send(reason_against(model_type))
    except BaseException as error:
        pipe.send(f"{type(error).__name__}: {error}")


def try_alone(model_type: str) -> str:
    """`reason_against` in a process of its own."""
    here, there = multiprocessing.Pipe(duplex=False)
    # A fork has the libraries imported, which takes longer than the trial.
    process = multiprocessing.get_context("fork").Process(target=_answer, args=(model_type, there))
    process.start()
    there.close()
    try:
        return here.recv() if here.poll(LIMIT_S) else f"no answer within {LIMIT_S} s"
    except EOFError:
        process.join()
        return f"the process ended with {process.exitcode}"
    finally:
        process.kill()
        process.join()


def make_rows(model_types: Iterable[str]) -> list[Row]:
    """Try model types one by one; what is under way is told on standard error."""
    rows = []
    for model_type in model_types:
        start = time.monotonic()
        message = try_alone(model_type)
        name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]
        rows.append(Row(model_type, name, in_few_words(message)))
        spent = time.monotonic() - start
        print(f"{model_type} {spent:.1f} s: {message[:300] or 'yes'}", file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Read the command line, try, and write the page or print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, nargs="?")
    parser.add_argument("--only", metavar="TYPE,...", help="model types to try; prints their rows")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    only = arguments.only and arguments.only.split(",")
    rows = make_rows(only or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
    lines = "\n".join(row.answer for row in rows)
    if arguments.page is None or only:
        print(lines)
        return
    page = PAGE.format(
        version=transformers.__version__,
        source=NUM_SOURCE,
        target=NUM_TARGET,
        obeying=sum(not row.reason for row in rows),
        all=len(rows),
        rows=lines,
    )
    arguments.page.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
