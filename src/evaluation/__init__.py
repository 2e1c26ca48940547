"""How well weights do on labelled images: metrics, tables and plots."""

from src.evaluation.evaluate import evaluate, evaluate_appa_real
