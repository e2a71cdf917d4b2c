#!/bin/sh
# Has a live video made and prints an address that players take: ffplay, VLC, mpv, Safari, and OBS as a media source.
#
#     ffplay "$(sh examples/hls.sh)"
#
# Its first argument is how long the video is to be, in seconds (60).
set -eu
seconds=${1:-60}
url=${HIAR_URL:-http://127.0.0.1:8000}
id=$(curl -fsS "$url/v1/videos" -H 'Content-Type: application/json' \
  -d "{\"prompt\": \"a red star spins in place at night\", \"seconds\": $seconds, \"pace\": \"realtime\"}" |
  sed 's/.*"id":"\([^"]*\)".*/\1/')
echo "$url/v1/videos/$id/index.m3u8"
