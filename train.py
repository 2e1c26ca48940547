"""Trains a network to estimate age and gender.

    python train.py
    python train.py model.model_name=EfficientNetB3 model.batch_size=64
    python train.py --help

Every key stands in src/config.yaml. The best weights go to checkpoints/.
"""

import hydra
from omegaconf import DictConfig, OmegaConf

from src import cli

OmegaConf.register_new_resolver("project_root", lambda: str(cli.ROOT), replace=True)


@hydra.main(version_base="1.3", config_path="src", config_name="config")
def main(cfg: DictConfig) -> None:
    def train() -> None:
        from src import training  # imports Keras: not for --help

        training.train(cfg)

    cli.run(train)


if __name__ == "__main__":
    main()
