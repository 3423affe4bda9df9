#!/bin/sh
set -eu
mkdir -p "$1/output/table" "$1/output/model"
printf 'id,name\n1,a\n' > "$1/output/table/t.csv"
echo weights > "$1/output/model/m"
