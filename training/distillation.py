"""One update of the critic and one of the student in HiAR's distillation (spec sections 6.2 to 6.4).

The student rolls out by itself as it will be served; the frozen teacher says where the data would be, the critic where
the student's own videos are, and the student follows the difference. The forward-KL regulariser holds its first step
near the teacher's. Text comes from one frozen encoder. Knows no folder and no command line.

Letters: B samples, N blocks, F latent frames of a block, C latent channels, Y and X latent height and width,
T text tokens.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import pad

from engine.config import RolloutConfig, require
from engine.law.schedule import noise_levels
from engine.model.dit import CausalWan
from engine.model.segments import TextRows
from engine.stage.noise import KeyedNoise
from training.captions import describe
from training.dmd import Flow, critic_loss, draw_sigmas, forward_kl_loss, matching_gradient, matching_loss
from training.forward import Mask, flow, text_rows
from training.networks import TEXT_LEN, TRAINED_BLOCKS, WINDOW_BLOCKS, TextToFlow
from training.rollout import Context, Plan, SelfRollout, exit_x0, roll_out, sample_noise
from training.run import precision
from training.student import block_shape
from training.tokenizer import token_ids
from training.trajectories import Trajectories
from training.world import draw_scene

CLIP = 10.0
MAX_SEED = 2**63


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The choices of a distillation. Raises ``ValueError`` on what does not go together."""

    rollout: RolloutConfig
    context: Context = Context.NEXT
    num_blocks: int = TRAINED_BLOCKS
    window_blocks: int = WINDOW_BLOCKS
    """Blocks that teacher and critic judge together: windows of a roll-out, each half over the one before."""
    batch: int = 4
    guidance: float = 3.0
    """Of the real score; 1 is none."""
    critic_updates: int = 4
    """Of the critic for one of the student."""
    critic_uses: int = 2
    """Updates that each roll-out of the critic's serves, at new noise levels."""
    fkl_weight: float = 0.1
    """0 leaves the regulariser out."""
    fkl_steps: int = 1
    """K: stages that the regulariser holds."""
    fkl_mask: Mask = Mask.BIDIRECTIONAL
    fkl_batch: int = 2
    min_exit: int = 0
    """The earliest exit stage that is drawn."""

    def __post_init__(self) -> None:
        """Check counts, and that order and context go together."""
        for name in ("batch", "critic_updates", "critic_uses", "fkl_batch"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)} is below 1")
        fits = 1 <= self.window_blocks <= self.num_blocks
        require(fits, f"{self.window_blocks=} leaves 1..{self.num_blocks}, the blocks of a roll-out")
        stages = self.rollout.num_stages
        require(1 <= self.fkl_steps <= stages, f"{self.fkl_steps=} leaves 1..{stages}")
        self.plan(self.min_exit)

    def plan(self, exit_stage: int) -> Plan:
        """A roll-out that leaves at a stage."""
        return Plan(rollout=self.rollout, num_blocks=self.num_blocks, exit_stage=exit_stage, context=self.context)


@dataclass(frozen=True)
class Judged:
    """Windows of roll-outs as teacher and critic see them; B counts windows here."""

    x_BNFCYX: Tensor
    first_blocks_B: Tensor
    """Where in its roll-out each begins."""
    tokens_BT: Tensor


@dataclass(frozen=True)
class Distillation:
    """The networks of a distillation and their updates. Student and critic change, the teacher does not."""

    recipe: Recipe
    student: TextToFlow
    critic: CausalWan
    teacher: TextToFlow
    tokenizer: Tokenizer
    trajectories: Trajectories | None
    """For the regulariser; None where it is left out."""

    def update_critic(self, rng: Generator, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """Let the critic follow the student: several updates on fresh roll-outs."""
        losses = []
        for update in range(self.recipe.critic_updates):
            if update % self.recipe.critic_uses == 0:
                tokens = self._tokens(rng, self.recipe.batch)
                with torch.no_grad():
                    judged = cut(self._roll_out(rng, tokens)[0].x0_BNFCYX, tokens, self.recipe.window_blocks)
            noise, sigmas = self._noise(rng, judged.x_BNFCYX), self._sigmas(rng, judged.x_BNFCYX)
            loss = critic_loss(judged.x_BNFCYX, noise, sigmas, self._flow(self.critic, judged))
            loss.backward()
            apply(optimizer, self.critic)
            losses.append(loss.item())
        return {"critic": sum(losses) / len(losses)}

    def update_student(self, rng: Generator, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """Move the student towards the teacher's distribution, held by the regulariser."""
        tokens = self._tokens(rng, self.recipe.batch)
        rolled, text = self._roll_out(rng, tokens)
        with precision(self.student.transformer.device):
            judged = cut(exit_x0(self.student.transformer, rolled, text), tokens, self.recipe.window_blocks)
        x, real, fake = judged.x_BNFCYX, self._guided(judged), self._flow(self.critic, judged)
        gradient = matching_gradient(x.detach(), self._noise(rng, x), self._sigmas(rng, x), real, fake)
        loss = matching_loss(x, gradient)
        values = {"matching": loss.item(), "size": gradient.abs().mean().item(), "std": x.std().item()}
        if self.trajectories is not None:
            regulariser = self._forward_kl(rng, self.trajectories)
            values["forward_kl"] = regulariser.item()
            loss = loss + self.recipe.fkl_weight * regulariser
        loss.backward()
        return values | {"gradient": apply(optimizer, self.student.transformer)}

    def _roll_out(self, rng: Generator, tokens_BT: Tensor) -> tuple[SelfRollout, TextRows]:
        """Roll out to a random exit stage, one for all samples, from fresh noise."""
        model = self.student.transformer
        plan = self.recipe.plan(int(rng.integers(self.recipe.min_exit, self.recipe.rollout.num_stages)))
        seeds = [int(seed) for seed in rng.integers(MAX_SEED, size=len(tokens_BT))]
        noise = sample_noise(KeyedNoise(model.device), seeds, block_shape(model.config))
        with precision(model.device):
            text = text_rows(model, self.student.encoder, tokens_BT)
            return roll_out(model, plan, noise, text), text

    def _forward_kl(self, rng: Generator, trajectories: Trajectories) -> Tensor:
        """The regulariser at one of the first K levels of random trajectories of the teacher."""
        stage = int(rng.integers(self.recipe.fkl_steps))
        points, chords, captions = trajectories.draw(rng, self.recipe.fkl_batch)
        model = self.student.transformer
        timesteps = torch.full(points[stage].shape[:2], noise_levels(self.recipe.rollout)[stage].timestep)
        tokens = token_ids(self.tokenizer, captions, TEXT_LEN).to(model.device)
        with precision(model.device):
            text = text_rows(model, self.student.encoder, tokens)
            x, timesteps = points[stage].to(model.device), timesteps.to(model.device)
            window_blocks = self.recipe.rollout.window_blocks
            predicted = flow(model, x, timesteps, text, self.recipe.fkl_mask, window_blocks=window_blocks)
        return forward_kl_loss(predicted, chords[:, stage].to(model.device))

    def _flow(self, model: CausalWan, judged: Judged) -> Flow:
        """A bidirectional network as a function of noised samples."""

        def predict(noised: Tensor, sigmas_B: Tensor) -> Tensor:
            timesteps_BN = (1000 * sigmas_B)[:, None].expand(-1, noised.shape[1])
            with precision(model.device):
                text = text_rows(model, self.teacher.encoder, judged.tokens_BT)
                first = judged.first_blocks_B
                return flow(model, noised, timesteps_BN, text, Mask.BIDIRECTIONAL, first_block=first).float()

        return predict

    def _guided(self, judged: Judged) -> Flow:
        """The teacher with guidance: against the empty prompt, in one forward of twice the batch. At 1 that is the
        teacher alone."""
        if self.recipe.guidance == 1:
            return self._flow(self.teacher.transformer, judged)
        tokens, first = judged.tokens_BT, judged.first_blocks_B
        nothing = token_ids(self.tokenizer, [""], TEXT_LEN).to(tokens.device)
        padded = pad(nothing, (0, tokens.shape[1] - nothing.shape[1])).expand_as(tokens)
        twice = Judged(judged.x_BNFCYX, torch.cat([first, first]), torch.cat([tokens, padded]))
        both = self._flow(self.teacher.transformer, twice)

        def predict(noised: Tensor, sigmas_B: Tensor) -> Tensor:
            told, untold = both(torch.cat([noised] * 2), torch.cat([sigmas_B] * 2)).chunk(2)
            return untold + self.recipe.guidance * (told - untold)

        return predict

    def _tokens(self, rng: Generator, num_samples: int) -> Tensor:
        captions = [describe(draw_scene(rng), rng) for _ in range(num_samples)]
        return token_ids(self.tokenizer, captions, TEXT_LEN).to(self.student.transformer.device)

    def _sigmas(self, rng: Generator, x: Tensor) -> Tensor:
        return draw_sigmas(rng, len(x), self.recipe.rollout.timestep_shift).to(x.device)

    def _noise(self, rng: Generator, like: Tensor) -> Tensor:
        return torch.from_numpy(rng.standard_normal(like.shape, dtype=np.float32)).to(like.device)


def cut(x_BNFCYX: Tensor, tokens_BT: Tensor, window_blocks: int) -> Judged:
    """Roll-outs as windows, those of the first roll-out first. They overlap, so that every seam but the last few is
    judged; blocks that fill no further half window are not."""
    starts = range(0, x_BNFCYX.shape[1] - window_blocks + 1, max(1, window_blocks // 2))
    windows = torch.stack([x_BNFCYX[:, start : start + window_blocks] for start in starts], dim=1).flatten(0, 1)
    first_blocks = torch.tensor(starts, device=x_BNFCYX.device).repeat(len(x_BNFCYX))
    return Judged(windows, first_blocks, tokens_BT.repeat_interleave(len(starts), dim=0))


def apply(optimizer: torch.optim.Optimizer, module: nn.Module) -> float:
    """Apply the gradients, clipped, and clear them; returns their norm before clipping."""
    norm = nn.utils.clip_grad_norm_(module.parameters(), CLIP)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(norm)
