#!/usr/bin/env python3
"""Fine-tunes torchvision's networks from several initialisations and prints one table.

    compare.py --protocol synth-segmentation --protocol synth-detection \\
        --init random --init moco-v2=runs/moco --init densecl=runs/densecl --out runs/transfer

On real sets, with the folder that the protocol's file describes:

    compare.py --protocol voc-detection --data voc-detection=VOCdevkit --device cuda --init ...

A run that is in --out already is not run again, so an interrupted comparison goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from densecl_transfer.initialisation import InitialisationError
from densecl_transfer.protocol import Protocol, ProtocolError
from densecl_transfer.table import Run, compare, initialise, prepare_data, table

PROTOCOLS = Path(__file__).resolve().parent / "protocols"


def parse() -> argparse.Namespace:
    known = ", ".join(sorted(path.stem for path in PROTOCOLS.glob("*.toml")))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", action="append", required=True, metavar="NAME|FILE",
                        help=f"may be given several times; known are {known}")
    parser.add_argument("--init", action="append", required=True, metavar="random|NAME=PATH",
                        help="initialisation of the backbone; PATH is whatever `densecl-trainer convert` reads")
    parser.add_argument("--data", action="append", default=[], metavar="PROTOCOL=FOLDER",
                        help="the data of a protocol; a synthetic protocol makes its own")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each initialisation, with seeds from 0 on")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; on a CPU each has one thread")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--trainer", type=Path,
                        default=os.environ.get("DENSECL_TRAINER", "target/release/densecl-trainer"))
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    if not Path(arguments.trainer).is_file():
        print(f"error: {arguments.trainer} does not exist; build it with "
              "`cargo build --release -p densecl-trainer`", file=sys.stderr)
        return 1
    folders = {name: Path(path) for name, _, path in (text.partition("=") for text in arguments.data)}
    try:
        protocols = [Protocol.read(path if path.suffix == ".toml" else PROTOCOLS / f"{path}.toml")
                     for path in map(Path, arguments.protocol)]
        weights = initialise(arguments.init, arguments.trainer, arguments.out)
        runs = [Run(protocol, folder, name, path, seed, arguments.device, arguments.out / "results")
                for protocol in protocols
                for folder in [prepare_data(protocol, folders.get(protocol.name), arguments.trainer, arguments.out)]
                for seed in range(arguments.seeds) for name, path in weights]
        records = compare(runs, arguments.jobs)
    except (ProtocolError, InitialisationError, ValueError, OSError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = table(records)
    (arguments.out / "table.md").write_text(text + "\n")
    (arguments.out / "results.json").write_text(json.dumps(records, indent=2) + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
