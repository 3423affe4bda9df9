#!/bin/sh
# The platform makes one directory named by a UUID here, and gives its path.
set -eu
exec python src/mnist/train.py "$1"
