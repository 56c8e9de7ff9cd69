// Package containers runs what deploy/ has for containers on a real engine: the
// images of deploy/Dockerfile are built, docker-compose.yaml is brought up, and the
// pod of the Helm chart is run container by container.
//
// Its tests have the build tag scale, need root and a network namespace of their own
// (`make scale` makes one), and fetch the engine with scripts/fetch_docker.py. The
// base images are stand-ins under the real names, made of this machine's programs.
package containers
