#!/bin/sh
# Makes a video with nothing but curl: streamed, and as a job that is fetched later.
set -eu
url=${HIAR_URL:-http://127.0.0.1:8000}

# The answer is the video, sent while it is made.
curl -fsS "$url/v1/generate" -H 'Content-Type: application/json' \
  -d '{"prompt": "a red star spins in place at night", "seconds": 2, "pace": "fast"}' -o streamed.mp4

# The answer is an object with an id; events tell of it until it has ended.
id=$(curl -fsS "$url/v1/videos" -H 'Content-Type: application/json' \
  -d '{"prompt": "a red star spins in place at night", "seconds": 2}' | sed 's/.*"id":"\([^"]*\)".*/\1/')
curl -fsSN "$url/v1/videos/$id/events" | sed -n 's/^event: //p'
curl -fsS "$url/v1/videos/$id/content" -o job.mp4
