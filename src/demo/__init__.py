"""The demo: frames in, drawn frames, files and a window out."""

from src.demo.run import run_demo
