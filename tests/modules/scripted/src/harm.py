"""Change what was given, look at what was not, write where nothing may be written: exit 0 if none of it works."""

import json
import os
import sys

top = sys.argv[1]
with open(f"{top}/configuration.json") as file:
    params = json.load(file)["params"]
done = []


def read(path):
    with open(path, "rb") as file:
        file.read(1)


def attempt(what, act):
    try:
        act()
    except OSError:
        return
    done.append(what)


for folder, _, names in os.walk(f"{top}/input"):
    for name in names:
        path = os.path.realpath(os.path.join(folder, name))
        open(path, "rb").close()
        attempt(f"write {name}", lambda path=path: open(path, "ab").close())
        attempt(f"chmod {name}", lambda path=path: os.chmod(path, 0o777))
        attempt(f"unlink {name}", lambda path=path: os.unlink(path))
        attempt(f"rename {name}", lambda path=path: os.rename(path, path + "x"))
        attempt(f"link {name}", lambda path=path: os.link(path, f"{top}/work/mine"))
        attempt(f"utime {name}", lambda path=path: os.utime(path, (0, 0)))
for place in ("/", "/module", "/xdata", "/xdata/given", "/usr", "/etc", *params.get("folders", [])):
    attempt(f"write in {place}", lambda place=place: open(f"{place}/planted", "w").close())
for place in params.get("files", []):
    attempt(f"read {place}", lambda place=place: read(place))
print(done)
sys.exit(9 if done else 0)
