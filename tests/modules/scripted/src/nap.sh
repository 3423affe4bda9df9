#!/bin/sh
touch "$1/session/begun"
exec sleep 600
