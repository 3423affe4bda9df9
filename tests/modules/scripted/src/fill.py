"""Fill the disk from the tree of a run."""

import sys
import time

for number in range(1000):
    with open(f"{sys.argv[1]}/work/{number}", "wb", buffering=0) as file:
        file.write(b"x" * 2**20)
    time.sleep(0.01)
