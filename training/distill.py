"""Distils the causal student on its own roll-outs, HiAR's way, or with one thing changed.

    python -m training.distill
    python -m training.distill --fkl-weight 0 --folder build/training/no-regulariser
    python -m training.distill --fkl-attention causal --folder build/training/causal-regulariser
    python -m training.distill --context current --folder build/training/context-current
    python -m training.distill --context clean --folder build/training/context-clean
    python -m training.distill --order block_first --folder build/training/self-forcing

A step is one update of the student after several of the critic. Every roll-out that is drawn, and the contact sheets
of 20-second videos, use the order and the context that are trained. The server can serve ``--context next`` and
``--order block_first``; the other contexts exist for comparison, in training's own roll-outs.
"""

import argparse
import dataclasses
from copy import deepcopy
from pathlib import Path

import torch
from torch import nn

from engine.config import Order
from training.autoencoder import load_autoencoder
from training.distillation import Distillation, Recipe
from training.forward import Mask
from training.networks import ROLLOUT, TRAINED_BLOCKS, WINDOW_BLOCKS, TextToFlow
from training.rollout import Context
from training.run import Average, Run, add_arguments, set_up
from training.student import draw_sheet, keep_tokenizer, load_network, sheet_plan
from training.trajectories import open_trajectories

FKL_MASKS = {"bidirectional": Mask.BIDIRECTIONAL, "causal": Mask.BLOCK_CAUSAL}
BETAS = (0.0, 0.999)
WEIGHT_DECAY = 0.01
WARM_UP_RATE = 20
"""Steps over which the rates rise."""


def main() -> None:
    """Command line."""
    args = _parse()
    device = set_up(args)
    distillation, average = _cast(args, device)
    student, critic = distillation.student.transformer, distillation.critic
    optimizer, critic_optimizer = _optimizer(student, args.rate), _optimizer(critic, args.critic_rate)
    parts = {"network": distillation.student, "average": average, "critic": critic}
    run = Run(args.folder, {**parts, "optimizer": optimizer, "critic_optimizer": critic_optimizer}, args.seed)
    autoencoder = load_autoencoder(args.autoencoder, device)
    for step in run.steps(args.steps):
        _set_rate(critic_optimizer, args.critic_rate, step)
        values = distillation.update_critic(run.rng(0), critic_optimizer)
        if step >= args.critic_first:
            _set_rate(optimizer, args.rate, step - args.critic_first)
            values |= distillation.update_student(run.rng(1), optimizer)
            average.update(distillation.student)
        if step % args.log_every == 0:
            run.log(**values)
        if (step + 1) % args.sheet_every == 0 or step + 1 == args.steps:
            assert isinstance(average.module, TextToFlow)
            plan = sheet_plan(distillation.recipe.plan(0), args.sheet_seconds)
            file = args.folder / f"videos-{step + 1:06}.png"
            draw_sheet(average.module, autoencoder, distillation.tokenizer, plan, file)


def _cast(args: argparse.Namespace, device: torch.device) -> tuple[Distillation, Average]:
    """Student, its average, critic and teacher as they are before the first step."""
    recipe = _recipe(args)
    teacher, tokenizer = load_network(args.teacher, device)
    student, _ = load_network(args.student, device)
    keep_tokenizer(args.teacher, args.folder)
    student.transformer.requires_grad_(True)
    critic = deepcopy(teacher.transformer).requires_grad_(True)
    trajectories = open_trajectories(args.trajectories, recipe.fkl_steps) if recipe.fkl_weight else None
    average = Average(student, args.average_decay)
    return Distillation(recipe, student, critic, teacher, tokenizer, trajectories), average


def _recipe(args: argparse.Namespace) -> Recipe:
    usual = Context.NEXT if args.order == Order.STEP_FIRST else Context.CLEAN
    return Recipe(
        rollout=dataclasses.replace(ROLLOUT, order=args.order),
        context=args.context or usual,
        num_blocks=args.blocks,
        window_blocks=args.window,
        batch=args.batch,
        guidance=args.guidance,
        critic_updates=args.critic_updates,
        critic_uses=args.critic_uses,
        fkl_weight=args.fkl_weight,
        fkl_steps=args.fkl_steps,
        fkl_mask=FKL_MASKS[args.fkl_attention],
        fkl_batch=args.fkl_batch,
        min_exit=args.min_exit,
    )


def _optimizer(module: nn.Module, rate: float) -> torch.optim.AdamW:
    """As the paper's code has it (spec section 6.1)."""
    return torch.optim.AdamW(module.parameters(), lr=rate, betas=BETAS, weight_decay=WEIGHT_DECAY)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float, step: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * min(1.0, (step + 1) / WARM_UP_RATE)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, "distill", steps=110)
    base = Path("build/training")
    parser.add_argument("--teacher", type=Path, default=base / "teacher", help="run folder (%(default)s)")
    parser.add_argument(
        "--student", type=Path, default=base / "ode_init", help="run folder to start from (%(default)s)"
    )
    parser.add_argument("--autoencoder", type=Path, default=base / "autoencoder", help="run folder (%(default)s)")
    parser.add_argument("--trajectories", type=Path, default=base / "trajectories", help="%(default)s")
    parser.add_argument("--order", type=Order, choices=list(Order), default=Order.STEP_FIRST, help="%(default)s")
    parser.add_argument("--context", type=Context, choices=list(Context), help="next, or clean for block_first")
    parser.add_argument("--fkl-weight", type=float, default=0.1, help="0: no regulariser (%(default)s)")
    parser.add_argument("--fkl-steps", type=int, default=1, help="K (%(default)s)")
    parser.add_argument("--fkl-attention", choices=list(FKL_MASKS), default="bidirectional", help="%(default)s")
    parser.add_argument("--fkl-batch", type=int, default=2, help="trajectories of a step (%(default)s)")
    parser.add_argument("--min-exit", type=int, default=0, help="earliest exit stage drawn (%(default)s)")
    parser.add_argument("--guidance", type=float, default=1.0, help="of the real score; 1: none (%(default)s)")
    parser.add_argument("--blocks", type=int, default=TRAINED_BLOCKS, help="of a roll-out (%(default)s)")
    parser.add_argument("--window", type=int, default=WINDOW_BLOCKS, help="blocks judged together (%(default)s)")
    parser.add_argument("--batch", type=int, default=2, help="roll-outs of an update (%(default)s)")
    parser.add_argument("--critic-updates", type=int, default=2, help="for one of the student (%(default)s)")
    parser.add_argument("--critic-uses", type=int, default=2, help="updates that a roll-out serves (%(default)s)")
    parser.add_argument("--critic-first", type=int, default=6, help="steps before the student moves (%(default)s)")
    parser.add_argument("--rate", type=float, default=2e-5, help="of the student (%(default)s)")
    parser.add_argument("--critic-rate", type=float, default=1e-4, help="faster, so as to follow (%(default)s)")
    parser.add_argument("--average-decay", type=float, default=0.9, help="(%(default)s)")
    parser.add_argument("--log-every", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--sheet-every", type=int, default=50, help="steps between contact sheets (%(default)s)")
    parser.add_argument("--sheet-seconds", type=float, default=20.0, help="length of their videos (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
