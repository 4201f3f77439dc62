"""Train Sample Factory's APPO for some seconds; every sample gets one gradient pass.

What this does not know goes to Sample Factory. Counted: the environment steps of its learner, one for each sample of
the batches trained on.
"""

import functools
import sys
import tempfile

import gymnasium as gym
import torch
from atari import make_frames
from report import Trained
from sample_factory.algo.learning.learner_worker import init_learner_process
from sample_factory.algo.runners import runner_parallel
from sample_factory.algo.runners.runner import AlgoObserver
from sample_factory.algo.utils.misc import ExperimentStatus
from sample_factory.cfg.arguments import parse_full_cfg, parse_sf_args
from sample_factory.envs.env_utils import register_env
from sample_factory.envs.env_wrappers import NumpyObsWrapper
from sample_factory.train import make_runner

# The same network and one pass; the rest of Atari's settings as the project's own example has them.
FIXED = {
    "device": "cpu",
    "encoder_conv_architecture": "convnet_atari",
    "encoder_conv_mlp_layers": [512],
    "nonlinearity": "relu",
    "use_rnn": False,
    "obs_scale": 255.0,
    "normalize_input": False,
    "normalize_returns": False,
    "num_epochs": 1,
    "num_batches_per_epoch": 1,
    "shuffle_minibatches": False,
    "recurrence": 1,
    "exploration_loss_coeff": 0.01,
    "max_grad_norm": 0.5,
    "env_frameskip": 4,
    "summaries_use_frameskip": False,  # count environment steps, not frames
    "decorrelate_experience_max_seconds": 0,
    "with_wandb": False,
    "restart_behavior": "overwrite",
}


def make_game(_name, _cfg, _env_config, render_mode=None, env_id=""):
    """Return one game with the last four frames as the observation [4, 84, 84]."""
    return NumpyObsWrapper(gym.wrappers.FrameStack(make_frames(env_id, False), 4))


def init_learner_with_threads(context, worker):
    """Start a learner as Sample Factory does, which sets one thread, and then give it what was asked for."""
    init_learner_process(context, worker)
    torch.set_num_threads(worker.cfg.learner_threads)


class Clock(AlgoObserver):
    """Ends the training when the time is over, counted in whole updates."""

    def __init__(self, trained, seconds):
        self._trained = trained
        self._seconds = seconds

    def on_training_step(self, runner, training_iteration_since_resume):
        if self._trained.note(runner.env_steps.get(0, 0)):
            runner.total_train_seconds = self._seconds + 1  # more than train_for_seconds


def train(folder):
    """Train as the command line says; what Sample Factory writes goes to a folder."""
    arguments = ["--env=atari", f"--train_dir={folder}", *sys.argv[1:]]
    parser, _ = parse_sf_args(arguments)
    parser.add_argument("--learner_threads", type=int, help="of torch in the learner (default: 1, Sample Factory's)")
    parser.add_argument("--game", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--report", required=True)
    parser.set_defaults(**FIXED)
    cfg = parse_full_cfg(parser, arguments)
    cfg.train_for_seconds = cfg.seconds
    register_env("atari", functools.partial(make_game, env_id=cfg.game))
    if cfg.learner_threads:
        runner_parallel.init_learner_process = init_learner_with_threads
        torch.set_num_threads(cfg.learner_threads)  # serial mode learns here
    trained = Trained(cfg.seconds)
    cfg, runner = make_runner(cfg)
    runner.register_observer(Clock(trained, cfg.seconds))
    status = runner.init()
    if status == ExperimentStatus.SUCCESS:
        status = runner.run()
    if status != ExperimentStatus.SUCCESS:
        raise SystemExit(f"Sample Factory ended with status {status}")
    trained.write(cfg.report)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="sample-factory-", ignore_cleanup_errors=True) as made:
        train(made)
