#!/bin/sh
# The main job with curl alone. Needs DATAPROC_APIKEY and DATAPROC_SECRET, and a server at DATAPROC_URL.
set -eu
url=${DATAPROC_URL:-http://127.0.0.1:8000}
data=$(dirname "$0")/data/seattle-weather.csv
key="APIKey: ${DATAPROC_APIKEY:?set it to a key made with: dataproc key create}"
secret="Secret: ${DATAPROC_SECRET:?set it to the secret of that key}"
json="Content-Type: application/json"

opened=$(curl -sSf "$url/api/v1/session/jsonrpc" -H "$key" -H "$secret" -H "$json" \
  -d '{"jsonrpc": "2.0", "id": 1, "method": "session.open_session", "params": {"expires_in": 600}}')
token=$(printf %s "$opened" | sed -n 's/.*"access_token": *"\([^"]*\)".*/\1/p')
[ -n "$token" ] || { echo "no session: $opened" >&2; exit 1; }
trap 'curl -sSf "$url/api/v1/session/jsonrpc" -H "$key" -H "$secret" -H "$json" -d "{\"jsonrpc\": \"2.0\", \"id\": 3, \"method\": \"session.close_session\", \"params\": {\"token\": \"$token\"}}"; echo' EXIT

exec_in_session() {
  curl -sSf "$url/api/v1/dataproc/jsonrpc" -H "Xdata-Session-Token: $token" -H "$json" \
    -d "{\"jsonrpc\": \"2.0\", \"id\": 2, \"method\": \"dataproc.exec\", \"params\": $1}"
  echo
}

exec_in_session '{"module": "test-module", "method": "session-test", "params": {}}'
exec_in_session '{"module": "test-module", "method": "session-test", "params": {}}'

curl -sSf -T "$data" "$url/api/v1/dataproc/files/weather.csv" -H "Xdata-Session-Token: $token"
curl -sSf "$url/api/v1/dataproc/files/" -H "Xdata-Session-Token: $token"
echo
