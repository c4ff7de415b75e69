#!/usr/bin/env bash
# Builds the image, runs docker_test.toml on three clients in containers with TLS and authentication, compares its records
# with those of one process, takes everything down. The engine is whatever docker finds (DOCKER_HOST). Where it matters:
#   BASE_IMAGE=debian-with-python3       no image registry can be reached
#   CA_BUNDLE=bundle.crt                 pip goes through a proxy that signs with an authority of its own
#   DOCKER_BUILD_OPTIONS="--network host --build-arg TORCH_INDEX=https://pypi.org/simple"
#   FL_SIM="python -m experiments.cli"   the command line to use; PORT, of the SuperLink on this machine
set -euo pipefail
cd "$(dirname "$0")/../.."
fl_sim=${FL_SIM:-fl-sim} port=${PORT:-18080} study=experiments/deploy/docker_test.toml
export FL_SIM_IMAGE=${FL_SIM_IMAGE:-fl-sim} COMPOSE_PROJECT_NAME=fl-sim-docker-test
place=$(mktemp -d)
if docker compose version >/dev/null 2>&1; then compose="docker compose"; else compose=docker-compose; fi
step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }
clean() {
  $fl_sim deploy down --place "$place" || true
  rm -rf "$place"
  [ -z "${CA_BUNDLE:-}" ] || rm -f ca-bundle.crt
}
trap clean EXIT

step "the image $FL_SIM_IMAGE"
[ -z "${CA_BUNDLE:-}" ] || cp "$CA_BUNDLE" ca-bundle.crt
# shellcheck disable=SC2086
docker build -q ${BASE_IMAGE:+--build-arg BASE_IMAGE="$BASE_IMAGE"} ${DOCKER_BUILD_OPTIONS:-} \
  -f experiments/deploy/Dockerfile -t "$FL_SIM_IMAGE" .
docker run --rm "$FL_SIM_IMAGE" id

step "keys, SuperLink, three clients"
$fl_sim deploy keys --clients 3 --place "$place"
$fl_sim deploy up --place "$place" --port "$port"
if ${PYTHON:-python3} -m experiments.deploy.health "127.0.0.1:$port"; then echo "it answers without TLS" >&2; exit 1; fi

step "the study, in containers"
$fl_sim deploy run $study --place "$place" --address "127.0.0.1:$port"

step "who is there, asked from a container"
export FL_SIM_DEPLOY=$place FL_SIM_USER
if [ "$(id -u)" = 0 ]; then FL_SIM_USER=49999:49999; else FL_SIM_USER=$(id -u):$(id -g); fi
COMPOSE_IGNORE_ORPHANS=1 $compose run --rm cli
docker ps --format '{{.Names}}: {{.Status}}; {{.Ports}}' --filter "name=$COMPOSE_PROJECT_NAME"

step "the study, in one process"
$fl_sim run $study --executor inline --out "$place/local" >/dev/null

step "compared"
${PYTHON:-python3} -m experiments.deploy.compare "$place/runs/docker_test" "$place/local"

step "down"
