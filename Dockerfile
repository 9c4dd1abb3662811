# The README's two commands in a container, as an ordinary user of a small Debian:
#
#     docker build --shm-size=2g -t openrlhf-cft .
#     docker run --rm --shm-size=2g openrlhf-cft                  # make quickstart
#     docker run --rm --shm-size=2g openrlhf-cft make test
#
# tests/bare_machine.sh runs these lines without Docker.
FROM debian:bookworm
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates g++ git libnuma1 make python3-dev python3-venv
RUN useradd --create-home user && install --directory --owner user /home/user/openrlhf_cft
USER user
WORKDIR /home/user/openrlhf_cft
COPY --chown=user . .
RUN make setup
CMD ["make", "quickstart"]
