#!/usr/bin/env bash
# Builds the images and takes `docker compose up` through a real engine: a built-in recipe, a restart, three replicas of
# which one is stopped and killed under load, a Ray cluster, a refused recipe and a user's own files. Everything is asked
# from outside the containers. `make docker-test` runs it.
#
# DOCKER_HOST_SCRIPT  gives a machine an engine (`up`) and takes it away again (`down`); without one, an engine that is
#                     already there is used
# TORCH_INDEX         another wheel index for PyTorch
set -euo pipefail
cd "$(dirname "$0")/.."

host=${DOCKER_HOST_SCRIPT:-../shared/tools/docker_host.sh}
films=../shared/data/movietweetings
export DOCKER_BUILDKIT=0 COMPOSE_DOCKER_CLI_BUILD=0   # the classic builder is everywhere, buildx is not
export COMPOSE_PROJECT_NAME=genrec-test               # no user's volumes
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export RECIPE=tiny-causal BUNDLE=tiny DATA_DIR PORT TORCH_INDEX=${TORCH_INDEX:-}
grace_s=40
scratch=$(mktemp -d)
DATA_DIR=$scratch
passed=0

if [ -x "$host" ]; then
  "$host" up
elif ! docker info >/dev/null 2>&1; then
  echo "skipped: no Docker engine, and no script at $host that would start one (DOCKER_HOST_SCRIPT)"
  exit 0
fi

if docker compose version >/dev/null 2>&1; then compose() { docker compose "$@"; }; else compose() { docker-compose "$@"; }; fi
everything() { compose --profile observability --profile ray "$@"; }

clean_up() {
  code=$?
  trap - EXIT
  [ $code = 0 ] || compose logs --tail 40 || true
  everything down --volumes --timeout 5 >/dev/null 2>&1 || true
  if [ -x "$host" ]; then "$host" down || true; fi
  rm -rf "$scratch"
  [ $code = 0 ] || echo "FAILED after $passed checks"
  exit $code
}
trap clean_up EXIT

check() { # check WHAT COMMAND…
  local what=$1
  shift
  if "$@" >"$scratch/said" 2>&1; then
    passed=$((passed + 1))
    echo "ok    $what"
  else
    echo "WRONG $what: $*"
    tail -40 "$scratch/said" | sed 's/^/      /'
    return 1
  fi
}
refused() { ! "$@"; }
replicas() { compose ps --quiet "$1"; }
container() { replicas "$1" | tail -1; }
inside() { docker exec "$(container service)" "$@"; }
state() { docker inspect --format "{{.State.$1}}" "$(container service)"; }
get() { curl --silent --show-error --fail --max-time 60 "$@"; }
recommend() { # recommend K HISTORY…: from outside, by the published port
  local k=$1 history
  shift
  history=$(printf '"%s",' "$@")
  get "127.0.0.1:$PORT/recommend" -H 'content-type: application/json' -d "{\"history\": [${history%,}], \"k\": $k}"
}
answers() { # answers K HISTORY…: k different items of the model's own, and no history item unknown
  recommend "$@" | python3 -c "
import json, sys
answer = json.load(sys.stdin)
items = {item['item_id'] for item in answer['items'] if item['source'] == 'model'}
sys.exit(len(items) != $1 or bool(answer['unknown_items']) or answer['history_used'] != $# - 1)"
}
healthy() { # healthy STEP: all of its containers
  local one
  for one in $(replicas "$1"); do
    [ "$(docker inspect --format '{{.State.Health.Status}}' "$one")" = healthy ] || return 1
  done
}
within() { # within SECONDS COMMAND…: until it succeeds
  local until=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $until ] || return 1
    sleep 1
  done
}
becomes_healthy() { within 300 healthy service; }
locked_down() { # locked_down STEP…: each container runs read-only, as no root, without capabilities
  local step one
  for step in "$@"; do
    for one in $(replicas "$step"); do
      docker inspect --format '{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}}' "$one" | grep -qx 'true \[ALL\]' || return 1
      docker exec "$one" grep -q '^CapEff:.0000000000000000$' /proc/1/status || return 1
      docker exec "$one" grep -q '^NoNewPrivs:.1$' /proc/1/status || return 1
      [ "$(docker exec "$one" id -u)" != 0 ] || return 1
      ! docker exec "$one" touch /written 2>/dev/null || return 1
    done
  done
}
stops_with_0_in_time() {
  local before=$SECONDS
  docker stop --time $grace_s "$(container service)" >/dev/null
  [ "$(state ExitCode)" = 0 ] && [ $((SECONDS - before)) -lt $grace_s ]
}
free_port() { python3 -c "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"; }
PORT=$(free_port)

echo "== images"
# The torch that pip finds outside, for images that see less of this machine than pip does.
[ -d wheels ] || python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 \
  --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --dest wheels torch
everything down --volumes >/dev/null 2>&1 || true
check "they are built" everything build
docker images --format '      {{.Repository}}: {{.Size}}' | grep 'genrec-test' | sort -u

echo "== recipe $RECIPE"
check "up trains and starts the service" compose up -d
check "the service becomes healthy" becomes_healthy
check "nginx becomes healthy" within 30 healthy nginx
check "POST /recommend answers 5 items" answers 5 co00 co03
echo "      $(recommend 2 co00 co03)"
check "it runs as user 10001" test "$(inside id -u)" = 10001
check "its root filesystem is read-only" refused inside touch /genrec/written
check "its bundles are read-only" refused inside touch /genrec/bundles/written
check "/tmp can be written" inside touch /tmp/written
check "it has no capability" inside grep -q '^CapEff:.0000000000000000$' /proc/self/status
check "it gains no privilege" inside grep -q '^NoNewPrivs:.1$' /proc/self/status
check "service and nginx are locked down" locked_down service nginx
check "only nginx is published" test -z "$(docker port "$(container service)")"
check "it is published on loopback only" test "$(docker port "$(container nginx)")" = "8080/tcp -> 127.0.0.1:$PORT"
check "nobody gets its numbers from outside" refused get "127.0.0.1:$PORT/metrics"
for module in peft sklearn matplotlib accelerate polars; do
  check "its image has no $module" refused inside python -c "import $module"
done
check "its image has no tests" inside python -c "from importlib.util import find_spec; assert not find_spec('tests')"
version=$(get "127.0.0.1:$PORT/info" | python3 -c "import json, sys; print(json.load(sys.stdin)['bundle']['version'])")

echo "== stop and start again"
check "SIGTERM ends it within the grace period, with 0" stops_with_0_in_time
check "up again" compose up -d
check "nothing was trained again" test "$(docker logs --tail 1 "$(container train)" 2>&1)" = "the bundle tiny is there: nothing to train"
check "the service becomes healthy" becomes_healthy
check "it serves the same bundle" grep -q "\"$version\"" <(get "127.0.0.1:$PORT/info")

echo "== killed, dead, hanging"
restarts() { docker inspect --format '{{.RestartCount}}' "$(container service)"; }
restarted() { # restarted TIMES: and answers again
  for _ in $(seq 60); do
    [ "$(restarts)" -lt "$1" ] || break
    sleep 1
  done
  [ "$(restarts)" = "$1" ] && becomes_healthy && answers 5 co00 co03
}
kill_the_server() { # not by `docker kill`: whoever says that does not want it back
  inside python -c "
import os, pathlib
own = [int(p.name) for p in pathlib.Path('/proc').iterdir() if p.name.isdecimal() and b'serve' in (p / 'cmdline').read_bytes()]
[os.kill(pid, 9) for pid in own if pid not in (1, os.getpid())]" || true # it ends with its container
}
breaks() { inside python -c "open('/tmp/faults.json', 'w').write('$1')"; }
ends_with_70() { docker logs "$(container service)" 2>&1 | grep -c '"exit_code": 70' | grep -qx "$1"; }
kill_the_server
check "after kill -9 it is started again and answers" restarted 1
export COMPOSE_FILE=docker-compose.yml:tests/system/faulty_compose.yml
check "up with a server that fails on demand" compose up -d service
check "the service becomes healthy" becomes_healthy
breaks '{"dies": true}'
check "an engine that dies answers no request" refused recommend 5 co00
check "the service is started again and answers" restarted 1
check "it had ended with 70" ends_with_70 1
breaks '{"hangs": true}'
check "an engine that hangs answers no request" refused recommend 5 co00
check "the service is started again and answers" restarted 2
check "it had ended with 70" ends_with_70 2
unset COMPOSE_FILE
check "up without faults" compose up -d service
check "the service becomes healthy" becomes_healthy

echo "== three replicas"
under_load() { # under_load SECONDS COMMAND…: 20 requests a second meanwhile, and none of them fails
  local seconds=$1 sender
  shift
  python3 -m tests.system.steady "$PORT" 20 "$seconds" co00 co03 >"$scratch/load" 2>&1 &
  sender=$!
  sleep 2
  "$@" || { kill $sender; return 1; }
  wait $sender || { cat "$scratch/load"; return 1; }
}
told_of_load() { sed 's/^/      /' "$scratch/load"; }
stop_and_start() { # stop_and_start CONTAINER
  docker stop --time $grace_s "$1" && docker start "$1"
}
kill_and_start() { # kill_and_start CONTAINER: as kill -9 does, while it has requests
  docker kill --signal KILL "$1" && sleep 5 && docker start "$1"
}
has() { [ "$(replicas "$1" | wc -l)" = "$2" ]; }
check "up --scale service=3, while requests come" under_load 40 compose up -d --scale service=3
told_of_load
check "there are three" has service 3
check "all become healthy" becomes_healthy
check "all are locked down" locked_down service
one=$(container service)
check "one is stopped and started again: no request fails" under_load 30 stop_and_start "$one"
told_of_load
check "all are healthy again" becomes_healthy
check "one is killed and started again: no request fails" under_load 30 kill_and_start "$one"
told_of_load
check "all are healthy again" becomes_healthy

echo "== profile observability"
export PROMETHEUS_PORT
PROMETHEUS_PORT=$(free_port)
prometheus() { get "127.0.0.1:$PROMETHEUS_PORT/api/v1/$1"; }
sees() { # sees QUERY VALUE: within a minute
  for _ in $(seq 60); do
    prometheus "query?query=$1" | grep -q "\"$2\"\]" && return 0
    sleep 1
  done
  prometheus "query?query=$1"
  return 1
}
check "Prometheus is built and started" compose --profile observability up -d prometheus
check "it sees three replicas" sees 'sum(up)' 3
check "all of them are ready" sees 'sum(genrec_ready)' 3
check "it is locked down" locked_down prometheus
check "it has alert rules" grep -q '"type":"alerting"' <(prometheus rules)
mapfile -t old < <(replicas service)
take_away() { # take_away CONTAINER…: one after another, as nginx asks three replicas at most
  local one
  for one in "$@"; do docker stop --time $grace_s "$one" && docker rm "$one" || return 1; done
}
check "there is another bundle" compose run --rm train cp -R bundles/tiny bundles/tiny-2
export BUNDLE=tiny-2
check "two replicas of it are added, while requests come" under_load 40 compose up -d --no-recreate --scale service=5 service
told_of_load
check "there are five" has service 5
check "all become healthy" becomes_healthy
check "the old ones are taken away one by one, while requests come" under_load 60 take_away "${old[@]}"
told_of_load
check "two are left, of the other bundle" test "$(docker inspect --format '{{.Config.Env}}' $(replicas service) | grep -c tiny-2)" = 2
check "Prometheus sees two" sees 'count(up)' 2
compose --profile observability rm --stop --force prometheus >/dev/null 2>&1

echo "== profile ray"
export RAY_CPUS=1 RAY_SERVE_PORT
RAY_SERVE_PORT=$(free_port)
ray() { compose --profile ray exec -T ray-head "$@"; }
nodes() { [ "$(ray ray list nodes --filter state=ALIVE --format json | python3 -c 'import json, sys; print(len(json.load(sys.stdin)))')" = "$1" ]; }
same_scores() { # as one machine gives
  local flags=(--bundle bundles/tiny --input data/users.jsonl --shard-rows 50)
  ray genrec score "${flags[@]}" --output scores/cluster --ray ray-head:6379 \
    && ray genrec score "${flags[@]}" --output scores/machine --threads 1 \
    && ray diff --recursive scores/cluster scores/machine
}
served_by_ray() { # the same items as behind nginx
  local items="import json, sys; print([item['item_id'] for item in json.load(sys.stdin)['items']])"
  [ "$(PORT=$RAY_SERVE_PORT recommend 5 co00 co03 | python3 -c "$items")" = "$(recommend 5 co00 co03 | python3 -c "$items")" ]
}
chmod 755 "$scratch"
python3 -c "
import json
for number in range(200): print(json.dumps({'user_id': f'u{number}', 'history': ['co00', f'co{number % 12:02d}']}))" >"$scratch/users.jsonl"
check "a head and two workers start" compose --profile ray up -d --scale ray-worker=2 ray-head ray-worker
check "they are one cluster" within 120 nodes 3
check "they are locked down" locked_down ray-head ray-worker
check "the dashboard is not published" test "$(docker port "$(container ray-head)")" = "8000/tcp -> 127.0.0.1:$RAY_SERVE_PORT"
check "who has no token is refused" refused ray env RAY_AUTH_MODE=disabled ray list nodes
check "genrec score --ray gives what one machine does" same_scores
check "genrec serve --ray ends when two replicas serve" ray genrec serve --ray ray-head:6379 --replicas 2
check "they answer as the service does" served_by_ray
compose --profile ray rm --stop --force ray-worker ray-head ray-token >/dev/null 2>&1

check "run takes any other command" compose run --rm train genrec inspect bundles/tiny

echo "== a recipe that is refused"
export RECIPE=no-such-recipe BUNDLE=none
check "up fails" refused compose up -d
check "train ended with 65" test "$(docker inspect --format '{{.State.ExitCode}}' "$(container train)")" = 65

if [ -d "$films" ]; then
  echo "== a user's own files"
  export RECIPE=data/my-recipe.toml BUNDLE=films
  chmod 755 "$scratch"
  python3 scripts/foreign_data.py "$films" training/recipes/own-data.toml "$scratch"
  check "up trains on them and starts the service" compose up -d
  check "the service becomes healthy" becomes_healthy
  mapfile -t popular < <(get "127.0.0.1:$PORT/v1/items?limit=3" | python3 -c "
import json, sys
for item in json.load(sys.stdin)['items']: print(item['item_id'])")
  check "POST /recommend answers 10 items for ${popular[*]}" answers 10 "${popular[@]}"
  echo "      $(recommend 1 "${popular[@]}")"
else
  echo "skipped: a user's own files (no $films)"
fi
echo "$passed passed, 0 failed"
