"""A table of `params.mebibytes`."""

import json
import os
import sys

top = sys.argv[1]
with open(f"{top}/configuration.json") as file:
    wanted = json.load(file)["params"]["mebibytes"] * 2**20
os.mkdir(f"{top}/output/table")
line, number, size = "x" * 1000, 0, 0
with open(f"{top}/output/table/table.csv", "w") as file:
    file.write("id,text\n")
    while size < wanted:
        size += file.write(f"{number},{line}\n")
        number += 1
