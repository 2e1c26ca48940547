"""Train a network to estimate age and gender.

    python train.py
    python train.py model.model_name=EfficientNetB3 model.batch_size=64
    python train.py data.db='my faces (1)/faces.csv' train.resume=true
    python train.py -m train.lr=0.001,0.0001                              # one training per value

The best weights go to checkpoints/. All keys and their defaults:
"""

import io
import os
import re
import signal
import sys
import traceback
from pathlib import Path


def _stop(number: int, frame: object) -> None:
    """End the process while it still imports; later `cli.defer_interrupts` has the signal."""
    os.write(2, b"interrupted: nothing has begun; start the same command again\n")
    os._exit(130)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _stop)

from src import cli  # noqa: E402
from src.training import hydra_arguments  # noqa: E402


def main() -> None:
    """Run the trainings that the arguments describe."""
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        cli.run(lambda: print(help_text()))
    cli.defer_interrupts()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log shows each line when it is written
    several = bool({"-m", "--multirun"} & set(arguments))
    printed = commands(arguments, several)
    sys.argv[1:] = hydra_arguments(arguments, several)
    codes = run_jobs(printed)
    failed = [name for name, code in codes.items() if code]
    if several and failed:
        cli.end(cli.fail(f"{len(failed)} of {len(codes)} trainings failed: {'; '.join(failed)}", 1))
    cli.end(next((code for code in codes.values() if code), 0))


def help_text() -> str:
    """The docstring of this script and `src/config.yaml` without Hydra's own part."""
    config = (cli.ROOT / "src" / "config.yaml").read_text(encoding="utf-8")
    return f"{__doc__}\n{config[config.index('data:') : config.index('defaults:')].strip()}"


def commands(arguments: list[str], several: bool) -> tuple[str, str]:
    """The commands that start and resume this training; of several some may be done and some not have begun."""
    backend = os.environ.get("KERAS_BACKEND")
    before = f"KERAS_BACKEND={backend} " if backend and os.name != "nt" else ""
    others = [argument for argument in arguments if not argument.startswith("train.resume=")]
    start = cli.shell_command("python", sys.argv[0], *others)
    resume = f"{before}{start} train.resume={'auto' if several else 'true'}"
    return (resume if several else before + start), resume


def run_jobs(printed: tuple[str, str]) -> dict[str, int]:
    """Run each training that Hydra makes of the arguments and return their exit codes by name."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import DictConfig, OmegaConf

    OmegaConf.register_new_resolver("project_root", lambda: str(cli.ROOT), replace=True)
    codes: dict[str, int] = {}
    cli.set_interrupt_text(lambda: f"no epoch is done; start again with: {printed[0]}")

    @hydra.main(version_base="1.3", config_path="src", config_name="config")
    def job(cfg: DictConfig) -> None:
        own = [override for override in HydraConfig.get().overrides.task if override not in sys.argv]
        if HydraConfig.get().mode == RunMode.MULTIRUN and cfg.train.checkpoint_dir is None:
            cfg.train.checkpoint_dir = str(job_folder(own, len(codes)))
        codes[f"#{len(codes)} {' '.join(own)}"] = run_job(cfg, printed)

    job()
    return codes


def job_folder(own: list[str], number: int) -> Path:
    """The folder of one of several trainings, named by the keys that only it has."""
    name = re.sub(r"[^\w.=,+-]", "_", ",".join(own)).strip(".")
    return cli.ROOT / "checkpoints" / (name if 0 < len(name) <= 100 else str(number))


def run_job(cfg, printed: tuple[str, str]) -> int:
    """Train and return the exit code; Ctrl-C and SIGTERM end the process, with it all trainings that would follow."""

    def run() -> None:
        cli.raise_if_interrupted()
        from src.training.train import train  # imports Keras: not for --help

        cli.raise_if_interrupted()
        train(cfg, printed)

    try:
        code = cli.call(run)
    except Exception:  # a defect: the other trainings still run
        traceback.print_exc()
        code = 1
    if code > 128:
        cli.end(code)
    return code


if __name__ == "__main__":
    main()
