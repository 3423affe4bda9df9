#!/bin/sh
# Links to what the server can read and a script cannot.
mkdir -p "$1/output/model/deep"
ln -s /etc/shadow "$1/output/model/deep/model"
