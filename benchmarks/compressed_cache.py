"""What keys and values in int8 change: bytes, logits, targets, scores and processor seconds.

    python benchmarks/compressed_cache.py MODEL SOURCE TARGET [COUNT [POLICY...]]

The first COUNT (100) lines of SOURCE are streamed under every policy, one after another and LANES
at once, with entries as the model makes them and in int8. A row for each policy: the largest
difference of a logit where both read and write what the plain run did, beside the largest logit;
the tokens that both find most probable there; BLEU of both; sources with the same target and delays
in both; sources with the same target and delays in int8, alone and beside others; processor seconds
of both, alone and beside others.
"""

import sys
import time
from collections.abc import Sequence

import torch

from proactivellm import StreamingCausalLM, TextSegmenter, load, parse_policy
from proactivellm.evaluation.evaluate import find_calibration
from proactivellm.forward.forced import forced_probes
from proactivellm.forward.int8 import Kv
from proactivellm.metrics.score import score
from proactivellm.policy.base import Policy
from proactivellm.session.engine import Engine
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.stream.job import Job
from proactivellm.stream.recorded import run_streams
from proactivellm.tasks.jobs import read_jobs

COUNT, LANES = 100, 16
POLICIES = ("offline", "wait-k:3", "entropy:1.0")
FORMS: tuple[Kv | None, ...] = (None, "int8")

Written = tuple[list[int], list[int]]  # target, head included, and its delays


def stream(
    model: StreamingCausalLM, policy: Policy, jobs: Sequence[Job], num_lanes: int
) -> tuple[list[Written], float]:
    """What is written for each source, and the processor seconds it took."""
    engine = Engine(model, policy, Limits(streams=num_lanes), Sampling())
    segmenter = TextSegmenter(model.tokenizer)
    waiting = [(index, segmenter.segment(job.source)) for index, job in enumerate(jobs)][::-1]
    running: dict[int, int] = {}
    found: dict[int, Written] = {}
    started = time.process_time()
    while waiting or running:
        while waiting and engine.has_room:
            index, units = waiting.pop()
            lane = engine.open()
            running[lane] = index
            engine.push(lane, units)
        engine.step()
        for lane, index in list(running.items()):
            state = engine.state(lane)
            if state.finished:
                found[index] = list(state.target), list(state.delays)
                engine.release(lane)
                del running[lane]
    return [found[index] for index in range(len(jobs))], time.process_time() - started


def forced_logits(
    model: StreamingCausalLM, job: Job, written: Written, kv: Kv | None
) -> torch.Tensor:
    """Logits [N, V] of what was written, each token after the units that it was written after."""
    model.compress_cache(kv)
    units = [list(unit.token_ids) for unit in TextSegmenter(model.tokenizer).segment(job.source)]
    source = [list(model.prompt.source_head), *units]
    source[-1] += model.prompt.source_tail
    tokens = written[0][len(model.prompt.target_head) :]
    probes = [(min(g, len(units)), t) for t, g in enumerate(written[1])]
    outputs = forced_probes(model, source, tokens, probes)
    return torch.cat([output.logits_PV for output in outputs])


def main(name: str, source: str, target: str, count: int, specs: Sequence[str]) -> None:
    torch.set_num_threads(1)
    model = load(name)
    jobs = read_jobs(None, source, target)[:count]
    print(
        "| policy | logit difference | of | same most probable | BLEU | BLEU int8 "
        "| same targets | same beside | CPU s | int8 | CPU s beside | int8 |"
    )
    print("|" + "---|" * 12)
    for spec in specs:
        policy = parse_policy(spec, find_calibration(model))
        alone, beside, scores = {}, {}, []
        for kv in FORMS:
            model.compress_cache(kv)
            stream(model, policy, jobs[:2], 1)  # warm
            alone[kv] = stream(model, policy, jobs, 1)
            beside[kv] = stream(model, policy, jobs, LANES)
            scores.append(score([*run_streams(model, policy, jobs, sampling=Sampling())])["BLEU"])
        largest = difference = 0.0
        same = tokens = 0
        for job, written in zip(jobs, alone[None][0], strict=True):
            plain, rounded = (forced_logits(model, job, written, kv) for kv in FORMS)
            finite = plain.isfinite()
            difference = max(difference, float((plain - rounded)[finite].abs().max()))
            largest = max(largest, float(plain[finite].abs().max()))
            same += int((plain.argmax(-1) == rounded.argmax(-1)).sum())
            tokens += len(plain)
        equal = sum(a == b for a, b in zip(alone[None][0], alone["int8"][0], strict=True))
        itself = sum(a == b for a, b in zip(alone["int8"][0], beside["int8"][0], strict=True))
        print(
            f"| {spec} | {difference:.3f} | {largest:.1f} | {same} of {tokens} "
            f"| {scores[0]:.2f} | {scores[1]:.2f} | {equal} | {itself} of {len(jobs)} "
            f"| {alone[None][1]:.2f} | {alone['int8'][1]:.2f} | {beside[None][1]:.2f} "
            f"| {beside['int8'][1]:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(
        *sys.argv[1:4],
        int(sys.argv[4]) if len(sys.argv) > 4 else COUNT,
        sys.argv[5:] or POLICIES,
    )
