"""The demo: frames in, drawn frames, files and a window out."""

from src.demo.request import Request, run_demo
