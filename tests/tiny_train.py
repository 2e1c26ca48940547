"""`train.py` with a network of two convolutions, which compiles within a second.

python tests/tiny_train.py KEY=VALUE ...
"""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src import cli

if __name__ == "__main__":
    cli.defer_interrupts()  # as train.py does before its own imports
    from distributed_process import build  # beside this file

    from src.models import backbones

    backbones.build = build
    sys.argv[0] = str(cli.ROOT / "train.py")
    runpy.run_path(sys.argv[0], run_name="__main__")
