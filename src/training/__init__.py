"""Training: the configuration in, weight files out."""

from src.training.train import train

__all__ = ["train"]
