"""The course of a run: from step to step, and whatever may happen between two of them.

    prompts -> answers (kept on disk) -> experience -> updates -> log -> checkpoint

What decides the weights is in the checkpoint, or follows from it: killed anywhere, also between answers and update or
between the value function's update and the policy's, the run goes on to the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .. import ranks
from .._contracts.errors import UserError
from .._contracts.stage import Run
from ..config import PpoConfig
from ..conversation import transcript
from ..engine import FlightLog, Loaded, Onlooker, RunConfig, Terminated, checkpoint
from ..sampling import draw_seed
from .checkpoints import Checkpoints, Place
from .controllers import KlController
from .experience import Actors, Experience, LogRow, evaluate_episodes
from .guard import GoBack, Guard
from .prompts import Prompt, prompt_numbers
from .rollouts import Episodes, read_answers, sample, write_answers
from .update import update


class Course:
    """One rank's way through a run; every rank calls the same methods."""

    def __init__(
        self,
        run: Run,
        settings: RunConfig,
        actors: Actors,
        prompts: Sequence[Prompt],
        start: Loaded,
        rank_files: Path | None,
    ):
        """Set a run up at its start, or where its newest checkpoint has it.

        Args:
            start: the policy as loaded.
            rank_files: for the watchdog; None outside of a launcher.
        """
        self._run, self._actors, self._prompts = run, actors, prompts
        self._config: PpoConfig = run.config
        self._trainers = {"policy": actors.policy, "value": actors.value}
        self._rates = {name: trainer.optimizer_config for name, trainer in self._trainers.items()}
        self._checkpoints = Checkpoints(run.work / "checkpoints", self._trainers, settings)
        self.flight = FlightLog(run.work, writes=ranks.is_first())
        self._guard = Guard(settings, self.flight, self._checkpoints.steps, run.log)
        self._kl = KlController(self._config.kl_coef, self._config.kl_target, self._config.kl_horizon)
        self._onlooker = Onlooker(
            settings, start.config, actors.policy, start.tokenizer, self._config.steps,
            f"{run.stage.name}-{run.fingerprint}", run.log, lambda text: None, rank_files, ranks.is_first(),
        )  # fmt: skip
        self.place = Place(self._config.kl_coef)
        found = checkpoint.newest_good(run.work / "checkpoints", run.log)
        if found is not None:
            self._load(found)
            run.log(f"going on after step {self.place.step}")

    def run(self) -> str:
        """Step to the end, and say how it came: "steps" or what stopped the run early.

        Raises:
            UserError: the rewards exploded, or training came apart and nothing was left to try.
            SystemExit: SIGTERM came; a checkpoint of the last step is there (143).
        """
        terminated = Terminated()
        try:
            with self._onlooker.watching(self.place.log):
                while (ended := self._ended()) is None:
                    if ranks.largest(float(terminated.here)):
                        self._save()
                        self._run.log(f"asked to end: step {self.place.step} is saved; run the same command to go on")
                        raise SystemExit(143)
                    try:
                        self._step()
                    except GoBack as back:
                        self._go_back(back)
        finally:
            terminated.restore()
        return ended

    def _ended(self) -> str | None:
        """Why the run is at its end, or None."""
        limit, log = self._config.stop_kl, self.place.log
        if limit is not None and log and log[-1]["kl"] > limit:
            self._run.log(f"step {self.place.step}: KL {log[-1]['kl']:.2f} nats an episode, above stop_kl {limit:g}")
            return "stop_kl"
        return "steps" if self.place.step >= self._config.steps else None

    def _step(self) -> None:
        """One batch of episodes: sample, evaluate, update, log."""
        config, place = self._config, self.place
        self._guard.begin(place.step + 1, place.rollbacks)
        seed = draw_seed(config.seed, place.turn)
        episodes = self._answers(seed)
        experience, figures = evaluate_episodes(self._actors, episodes, config, self._kl.coef, seed)
        row = {"step": place.step + 1, "kl_coef": self._kl.coef, **figures}
        row |= update(self._actors, experience, config, seed, self._guard)
        self._refuse_nonsense(row)
        self._keep_samples(experience)
        place.step, place.turn = place.step + 1, place.turn + 1
        place.tokens += sum(episodes.lengths)
        place.skipped += self._guard.skipped
        place.log.append(row)
        self._kl.update(figures["kl"], len(episodes.prompts))
        place.kl_coef = self._kl.coef
        self._onlooker.stepped(place.step, place.tokens, {"loss": -figures["reward"], "lr": row.get("policy_lr", 0.0)})
        self._onlooker.added(row)
        if place.step % config.log_every == 0:
            told = f"reward {row['reward']:.3f}, kl {row['kl']:.3f}"
            self._run.progress(f"step {place.step}/{config.steps}, {told}")
        if place.step % config.checkpoint_every == 0 and place.step < config.steps:
            self._save()

    def _answers(self, seed: int) -> Episodes:
        """The policy's answers in this step, sampled or found on disk."""
        config, turn = self._config, self.place.turn
        asked = [self._prompts[n] for n in prompt_numbers(len(self._prompts), config.batch_size, turn, config.seed)]
        ids = [prompt.ids for prompt in asked]
        path = self._rollouts / f"step-{turn + 1:08d}.safetensors"
        episodes = ranks.from_first(read_answers(path, ids) if ranks.is_first() else None)
        if episodes is None:
            length, size = config.max_response_length, config.sample_batch
            episodes = sample(self._actors.policy.module, ids, self._actors.chat, length, seed, size)
            if ranks.is_first():
                write_answers(path, episodes)
        return Episodes(ids, episodes.answers, episodes.finished, [prompt.id for prompt in asked])

    def _keep_samples(self, experience: Experience) -> None:
        """Some episodes with score, KL and total reward, as lm-human-preferences prints them."""
        config, place, chat = self._config, self.place, self._actors.chat
        if not config.samples_every or place.step % config.samples_every:
            return
        episodes = experience.episodes
        for row in range(min(config.samples_kept, len(episodes.prompts))):
            score, kl = experience.scores[row].item(), experience.kl[row].item()
            place.samples.append(
                {
                    "step": place.step + 1,
                    "prompt": transcript(chat.messages(episodes.prompts[row])),
                    "response": chat.text(episodes.answers[row]),
                    "score": score,
                    "kl": kl,
                    "total": score - self._kl.coef * kl,
                }
            )

    def _refuse_nonsense(self, row: LogRow) -> None:
        """End a run whose figures are no numbers any more, or whose rewards are beyond all measure."""
        step = row["step"]
        for name, value in row.items():
            if not abs(value) < float("inf"):
                raise UserError(f"step {step}: {name} is {value}; training came apart, lower the learning rate")
        first = self.place.log[0] if self.place.log else row
        risen = (row["reward"] - first["reward"]) / max(first["reward_deviation"], 1.0)
        if abs(risen) > self._config.reward_limit:
            raise UserError(
                f"step {step}: the mean reward is {row['reward']:.4g}, {risen:+.1f} deviations from the first batch's "
                f"(reward_limit {self._config.reward_limit:g}): it exploded; raise kl_coef or mend the reward model"
            )

    @property
    def _rollouts(self) -> Path:
        return self._run.work / "rollouts"

    def _save(self) -> None:
        self.place.guard = self._guard.state_dict()
        with self._onlooker.patience():
            self._checkpoints.save(self.place)
        self._forget_answers(self.place.turn)

    def _load(self, folder: Path) -> None:
        self.place = self._checkpoints.load(folder)
        self._guard.load_state_dict(self.place.guard)
        self._kl.coef = self.place.kl_coef
        self._set_rates()

    def _go_back(self, back: GoBack) -> None:
        """To a checkpoint, and on with other prompts."""
        now, measures = self.place, self._guard.state_dict()
        assert back.action.target is not None
        self._load(checkpoint.place(self._run.work / "checkpoints", back.action.target))
        usual = self.place.guard
        self._guard.load_state_dict(measures)
        self._guard.rewind(usual)
        self._set_rates()
        self.place.turn = now.turn + 1 + back.action.skip_after
        self.place.rollbacks = now.rollbacks + 1
        self._checkpoints.forget_after(back.action.target)
        self._save()  # the same step, with what was decided since

    def _set_rates(self) -> None:
        """The learning rates that the policies on spikes have left."""
        for name, trainer in self._trainers.items():
            given = self._rates[name]
            wanted = given.model_copy(update={"lr": given.lr * self._guard.lr_factor(name)})
            if wanted != trainer.optimizer_config:
                trainer.change_optimizer(wanted)

    def _forget_answers(self, turn: int) -> None:
        """Answers of steps before a checkpoint are of no more use."""
        if ranks.is_first():
            for path in sorted(self._rollouts.glob("step-*.safetensors")):
                if int(path.stem.removeprefix("step-")) <= turn:
                    path.unlink()
