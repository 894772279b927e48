"""Times the same steps by one rank and by several, each with one thread on a core of its own.

    python scaling.py --trainer target/release/densecl-trainer
    python scaling.py --trainer densecl-trainer --ranks 4 --set optimizer.batch=128 --set contrast.bn_splits=4

All ranks are started once and stay warm; blocks of steps go round in alternation, one rank and then
all, while the others wait. The global batch, the BatchNorm groups, and so the result of the steps are
the same. Reported is how many times as many pairs per second several ranks make of it: the median of
the rounds, with their quartiles. Needs an idle machine with a core for every rank, and nothing beyond
Python itself.
"""

import argparse
import os
import pathlib
import socket
import statistics

from compare import Program

HERE = pathlib.Path(__file__).resolve().parent


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class World:
    """Ranks that take steps together, on demand."""

    def __init__(self, size, arguments):
        command = [arguments.trainer, "bench", "--serve", "--device", "cpu", "--config", arguments.config,
                   "--set", f"contrast.bn_splits={arguments.ranks}", *arguments.set]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        port = free_port()
        launch = {"WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        self.ranks = []
        for rank in range(size):
            mine = {**launch, "RANK": rank, "LOCAL_RANK": rank} if size > 1 else {}
            variables = {name: str(value) for name, value in mine.items()}
            self.ranks.append(Program(command, {**environment, **variables}))
        self.setting = [rank.read() for rank in self.ranks][0]

    def pairs_per_second(self, steps):
        for rank in self.ranks:
            rank.process.stdin.write(f"run {steps}\n")
            rank.process.stdin.flush()
        blocks = [rank.read() for rank in self.ranks]
        return min(block["pairs_per_second"] for block in blocks)

    def stop(self):
        for rank in self.ranks:
            rank.process.stdin.close()
        for rank in self.ranks:
            rank.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trainer", required=True, type=pathlib.Path)
    parser.add_argument("--config", default=HERE / "config.toml", type=pathlib.Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--ranks", default=2, type=int)
    parser.add_argument("--rounds", default=7, type=int)
    parser.add_argument("--steps", default=3, type=int, help="in a block")
    arguments = parser.parse_args()

    worlds = [World(1, arguments), World(arguments.ranks, arguments)]
    network, batch = worlds[0].setting["network"], worlds[0].setting["batch"]
    print(f"{network['architecture']} at {worlds[0].setting['view_px']} px, batch {batch}")
    rates = [[], []]
    for number in range(arguments.rounds):
        for world, found in zip(worlds, rates):
            found.append(world.pairs_per_second(arguments.steps))
        print(f"round {number + 1}: {rates[0][-1]:.2f} and {rates[1][-1]:.2f} pairs/s", flush=True)
    for world in worlds:
        world.stop()
    ratios = [several / one for one, several in zip(*rates)]
    low, _, high = statistics.quantiles(ratios, n=4)
    print(f"1 rank   {statistics.median(rates[0]):8.2f} pairs/s")
    print(f"{arguments.ranks} ranks  {statistics.median(rates[1]):8.2f} pairs/s, "
          f"{statistics.median(ratios):.2f} [{low:.2f}, {high:.2f}] times as many")


if __name__ == "__main__":
    main()
