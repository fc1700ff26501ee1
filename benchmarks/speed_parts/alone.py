"""Load one contender and caption one picture: a process to be weighed. Imports what that contender needs alone.

python -m speed_parts.alone PICTURE (ours MODEL ENGINE PRECISION | others NAME PRECISION [LAYERS]) --threads N
"""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    """Caption the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("whose", choices=("ours", "others"))
    parser.add_argument("what", nargs="+")
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    picture = arguments.picture.read_bytes()
    if arguments.whose == "ours":
        import captioner

        model, engine, precision = arguments.what
        threads = arguments.threads
        own = captioner.load(model, engine=engine, device="cpu", precision=precision, threads=threads)
        own(picture, beam_size=3)
    else:
        import torch
        from speed_parts import others

        name, precision, *layers = arguments.what
        torch.set_num_threads(arguments.threads)
        others.Other(name, precision, *map(int, layers))(picture)


if __name__ == "__main__":
    main()
