"""How far a step is from the fastest that this machine could do it: ``python -m benchmarks.floor --case g8t4``.

Each stage's unique work (every token and every image once) is a list of operations at the shapes in which they come.
Each is timed here, alone and at its best; their sum is the floor. Norms, activations, rotary positions and everything
that Python does are left out: they are part of what a step pays above its floor.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.case import ARCHITECTURES, CASES, Case, case_of, image_tokens, shown_px, write_case
from benchmarks.model import write_model
from benchmarks.report import stages_of
from benchmarks.run import run_side
from benchmarks.trace import Trace, unique_tokens
from mmturn.models.kernels import PackedLinears

PATCH = {"qwen3_vl": 16, "qwen2_5_vl": 14}
HEAD = 64
LEAST_S = 0.05


@dataclass(frozen=True)
class Work:
    """Some operations of one stage."""

    stage: str
    what: str
    seconds: float
    """At this machine's best, all of them."""
    flops: float


def best_s(run: Callable[[], object]) -> float:
    """Seconds of the fastest of several runs."""
    run()
    best, spent, count = float("inf"), 0.0, 0
    while spent < LEAST_S or count < 5:
        started = time.perf_counter()
        run()
        took = time.perf_counter() - started
        best, spent, count = min(best, took), spent + took, count + 1
    return best


@cache
def linear_s(rows: int, inner: int, outer: int) -> float:
    """A linear layer forward, its matrix as it is or laid out for few rows, whichever is faster."""
    return products_s(torch.randn(rows, inner), [torch.nn.Linear(inner, outer, bias=False)])


@torch.no_grad()
def products_s(x: Tensor, layers: Sequence[torch.nn.Linear]) -> float:
    """Linear layers one after the other, on the first columns of ``x``."""
    packed = PackedLinears()
    inputs = [x[:, : layer.in_features].contiguous() for layer in layers]

    def run(linear: Callable[[torch.nn.Module, Tensor], Tensor]) -> None:
        for layer, part in zip(layers, inputs, strict=True):
            linear(layer, part)

    return min(best_s(lambda: run(lambda layer, part: layer(part))), best_s(lambda: run(packed)))


@cache
def linear_back_s(rows: int, inner: int, outer: int) -> float:
    """Its backward: gradients of input and weight."""
    x, weight, grad = torch.randn(rows, inner), torch.randn(outer, inner), torch.randn(rows, outer)
    return best_s(lambda: (grad @ weight, grad.t() @ x))


@cache
def attention_s(batch: int, heads: int, new: int, past: int, causal: bool, backward: bool) -> float:
    """Attention of ``new`` queries over ``past + new`` keys; with ``backward`` the seconds of the backward pass."""
    shapes = [(batch, heads, new, HEAD), (batch, heads, past + new, HEAD), (batch, heads, past + new, HEAD)]
    q, k, v = (torch.randn(shape, requires_grad=backward) for shape in shapes)

    def forward() -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

    if not backward:
        return best_s(forward)
    out = forward()
    grad = torch.randn_like(out)
    return best_s(lambda: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True))


@cache
def softmax_s(rows: int, vocab: int) -> float:
    """Log-probabilities of rows of logits."""
    logits = torch.randn(rows, vocab)
    return best_s(lambda: logits.log_softmax(-1))


def optimizer_s(parameters: int) -> float:
    """A step of fused AdamW."""
    weight = torch.nn.Parameter(torch.zeros(parameters))
    weight.grad = torch.ones(parameters)
    optimizer = torch.optim.AdamW([weight], lr=1e-5, fused=True)
    return best_s(optimizer.step)


@dataclass(frozen=True)
class Shapes:
    """The unique work of a step, as lengths."""

    case: Case
    prompt: int
    """Tokens that the group shares."""
    suffix: int
    """Tokens that a tool's answer adds, with the sampled token before them that was not run yet."""
    own: int
    """Tokens of a trajectory after the prompt."""

    @property
    def heads(self) -> int:
        """Attention heads, of both towers."""
        return max(1, self.case.hidden // HEAD)

    def layer(self) -> list[tuple[int, int]]:
        """Linear layers of a decoder layer: inner and outer width."""
        h, kv = self.case.hidden, max(1, self.heads // 2) * HEAD
        return [(h, self.heads * HEAD), (h, kv), (h, kv), (self.heads * HEAD, h), (h, 4 * h), (h, 4 * h), (4 * h, h)]

    def block(self) -> list[tuple[int, int]]:
        """Linear layers of a vision block; Qwen2.5-VL's has a gate."""
        h = self.case.hidden
        return [(h, 3 * h), (h, h), (h, 4 * h), (4 * h, h), *([(h, 4 * h)] if self.case.arch == "qwen2_5_vl" else [])]


def shapes_of(case: Case, trace: Trace) -> Shapes:
    """Lengths from the trajectories that a step really had (they differ by a few digits: means)."""
    total, unique, group = sum(map(len, trace.sequences)), unique_tokens(trace.sequences), case.group_size
    prompt = round((total - unique) / (group - 1))
    own = round(total / group) - prompt
    suffix = round((own - (case.turns + 1) * case.new_tokens) / case.turns) + 1
    return Shapes(case, prompt, suffix, own)


def products(
    stage: str, what: str, calls: int, rows: int, widths: Sequence[tuple[int, int]], back: bool = False
) -> Work:
    """Linear layers, each ``calls`` times on ``rows``."""
    timed = linear_back_s if back else linear_s
    seconds = sum(timed(rows, inner, outer) for inner, outer in widths)
    flops = sum(2.0 * rows * inner * outer for inner, outer in widths) * (2 if back else 1)
    return Work(stage, what, calls * seconds, calls * flops)


def attended(
    stage: str, calls: int, batch: int, heads: int, new: int, past: int, causal: bool = False, back: bool = False
) -> Work:
    """Attention, ``calls`` times."""
    pairs = new * past + new * new * (0.5 if causal else 1.0)
    flops = 4.0 * batch * heads * HEAD * pairs * (2.5 if back else 1.0)
    return Work(stage, "attention", calls * attention_s(batch, heads, new, past, causal, back), calls * flops)


def decoding(shapes: Shapes, steps: int) -> Work:
    """Linear layers of decoding, one token per row: every layer's own weights, as they come out of memory."""
    case, widths = shapes.case, shapes.layer()
    layers = [torch.nn.Linear(inner, outer, bias=False) for _ in range(case.layers) for inner, outer in widths]
    seconds = products_s(torch.randn(case.group_size, max(inner for inner, _ in widths)), layers)
    flops = sum(2.0 * case.group_size * inner * outer for inner, outer in widths) * case.layers
    return Work("rollout/decode", "linear", steps * seconds, steps * flops)


def vision_work(shapes: Shapes, stage: str, back: bool = False) -> list[Work]:
    """The tower on every image of the step once: the root alone, the crops together."""
    case, layers, work = shapes.case, shapes.case.layers, []
    for count, side in ((1, case.root_px), (case.group_size * case.turns, case.crop_px)):
        patches = (shown_px(case, side) // PATCH[case.arch]) ** 2
        work.append(products(stage, "linear", layers, count * patches, shapes.block(), back))
        if case.arch == "qwen2_5_vl":  # windows of 8 x 8 patches in all layers but the last
            windows = -(-patches // 64)
            work.append(attended(stage, layers - 1, count * windows, shapes.heads, min(patches, 64), 0, back=back))
            work.append(attended(stage, 1, count, shapes.heads, patches, 0, back=back))
        else:
            work.append(attended(stage, layers, count, shapes.heads, patches, 0, back=back))
        wide = 4 * case.hidden
        merged = count * image_tokens(case, side)
        work.append(products(stage, "merger", 1, merged, [(wide, wide), (wide, case.hidden)], back))
    return work


def rollout_work(shapes: Shapes) -> list[Work]:
    """Prefill of what is new at each turn, decoding, the head at each sampled token."""
    case, layers, heads = shapes.case, shapes.case.layers, shapes.heads
    group, turns, new = case.group_size, case.turns, case.new_tokens
    work = vision_work(shapes, "rollout/vision")
    work.append(products("rollout/language", "linear", layers, shapes.prompt, shapes.layer()))
    work.append(attended("rollout/language", layers, 1, heads, shapes.prompt, 0, causal=True))
    for turn in range(1, turns + 1):
        past = shapes.prompt + turn * (new + shapes.suffix) - shapes.suffix
        work.append(products("rollout/language", "linear", layers, group * shapes.suffix, shapes.layer()))
        work.append(attended("rollout/language", layers, group, heads, shapes.suffix, past))
    steps = (turns + 1) * (new - 1)
    work.append(decoding(shapes, steps))
    work.append(attended("rollout/decode", layers * steps, group, heads, 1, shapes.prompt + shapes.own // 2))
    draws = (turns + 1) * new
    work.append(products("rollout/decode", "head", draws, group, [(case.hidden, case.vocab)]))
    work.append(Work("rollout/decode", "softmax", draws * softmax_s(group, case.vocab), 0.0))
    return work


def update_work(shapes: Shapes, parameters: int) -> list[Work]:
    """Forward and backward over the tree of the group's tokens; the head on sampled positions."""
    case, layers, heads = shapes.case, shapes.case.layers, shapes.heads
    unique, group, sampled = shapes.prompt + case.group_size * shapes.own, case.group_size, case.sampled_tokens
    work = [] if case.frozen else vision_work(shapes, "update/vision")
    head = [(case.hidden, case.vocab)]
    rest = "update/backward and other"

    def language(stage: str, back: bool = False) -> list[Work]:
        return [
            products(stage, "linear", layers, unique, shapes.layer(), back),
            attended(stage, layers, 1, heads, shapes.prompt, 0, causal=True, back=back),
            attended(stage, layers, group, heads, shapes.own, shapes.prompt, back=back),
        ]

    work += language("update/language")
    work += [replace(part, what=f"{part.what}, again") for part in language(rest)]
    if not case.frozen:
        work += [replace(part, what=f"{part.what}, again") for part in vision_work(shapes, rest)]
        work += vision_work(shapes, rest, back=True)
    work += language(rest, back=True)
    work += [products(rest, "head", 1, sampled, head), products(rest, "head", 1, sampled, head, back=True)]
    work += [Work(rest, "softmax", 2 * softmax_s(sampled, case.vocab), 0.0)]
    return [*work, Work("optimizer", "AdamW", optimizer_s(parameters), 0.0)]


def table_of(case: Case, work: Sequence[Work], measured: dict[str, float]) -> str:
    """Floor and measured seconds by stage, as Markdown."""
    lines = [
        f"### {case.label}",
        "",
        "| stage | floor, s | GFLOP | measured, s | measured / floor |",
        "|---|---|---|---|---|",
    ]
    for stage in dict.fromkeys(part.stage for part in work):
        own = [part for part in work if part.stage == stage]
        floor, found = sum(part.seconds for part in own), measured.get(stage, 0.0)
        gflop = sum(part.flops for part in own) / 1e9
        lines.append(f"| {stage} | {floor:.3f} | {gflop:.1f} | {found:.3f} | {found / floor:.2f} |")
    floor, gflop = sum(part.seconds for part in work), sum(part.flops for part in work) / 1e9
    again = sum(part.seconds for part in work if part.what.endswith("again"))
    lines.append(
        f"| whole step | {floor:.3f} | {gflop:.1f} | {measured['step']:.3f} | {measured['step'] / floor:.2f} |"
    )
    lines += ["", f"of the floor, {again:.3f} s are run again for activation checkpointing", ""]
    lines += ["| operation | floor, s | GFLOP/s |", "|---|---|---|"]
    for key in dict.fromkeys((part.stage, part.what) for part in work):
        own = [part for part in work if (part.stage, part.what) == key]
        seconds, flops = sum(part.seconds for part in own), sum(part.flops for part in own)
        rate = f"{flops / seconds / 1e9:.0f}" if flops else "–"
        lines.append(f"| {key[0]}: {key[1]} | {seconds:.3f} | {rate} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run mmturn's side once, time the operations, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", choices=sorted(CASES), default="g8t4")
    parser.add_argument("--arch", choices=ARCHITECTURES, default=ARCHITECTURES[0])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--smoke", action="store_true", help="a tiny model, one step")
    args = parser.parse_args(argv)
    case = case_of("smoke" if args.smoke else args.case, args.arch, threads=1 if args.smoke else args.threads)
    folder = args.out.resolve() / case.label
    folder.mkdir(parents=True, exist_ok=True)
    write_case(case, folder / "case.json")
    write_model(case, folder / "model")
    trace = run_side("mmturn", case, folder, 1 if args.smoke else args.steps, 0)
    torch.set_num_threads(case.threads)
    shapes = shapes_of(case, trace)
    parameters = int(trace.memory["gradients"]) // 4
    work = rollout_work(shapes) + update_work(shapes, parameters)
    text = table_of(case, work, stages_of([trace]))
    (folder.parent / f"{case.label}-floor.md").write_text(text + "\n", encoding="utf-8")
    numbers = [vars(part) for part in work]
    (folder.parent / f"{case.label}-floor.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
