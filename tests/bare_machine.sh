#!/usr/bin/env bash
# The README on a machine that has nothing: a minimal Debian in a folder, an ordinary user, an empty environment, pip
# without configuration. Runs the lines of the Dockerfile, a quickstart on few questions, and the light tests.
#
#     sudo bash tests/bare_machine.sh                     # Debian 12; 15 to 30 minutes on 2 cores
#     SUITE=trixie sudo -E bash tests/bare_machine.sh     # Debian 13
#     SUITE=noble SCRIPT=gutsy OPTIONS=--components=main,universe MIRROR=... sudo -E bash tests/bare_machine.sh
#     WHOLE=1 sudo -E bash tests/bare_machine.sh          # `make quickstart` and `make test` as the README has them
#
# Needs root, debootstrap and 15 GB. FOLDER keeps the machine in a folder; otherwise it is deleted at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
SUITE=${SUITE:-bookworm}

if [ "$(id -u)" != 0 ] || ! command -v debootstrap > /dev/null; then
  echo "bare_machine: not run: it needs root and debootstrap (apt-get install debootstrap)"
  exit 0
fi
# Mounts and processes of the machine end with this script.
[ -n "${BARE_MACHINE:-}" ] || exec env BARE_MACHINE=1 unshare --mount --pid --fork --kill-child --mount-proc bash tests/bare_machine.sh

root=${FOLDER:-$(mktemp -d)}
[ -n "${FOLDER:-}" ] || trap 'umount -R "$root"/{dev,sys,proc} || true; rm -rf --one-file-system "$root" || true' EXIT
say() { printf '\nbare_machine: %s (%d s since the start)\n' "$1" "$SECONDS"; }
fail() { echo "bare_machine: $1" >&2; exit 1; }

say "$SUITE in $root"
mkdir -p "$root"
[ -e "$root/etc/debian_version" ] ||
  debootstrap ${OPTIONS:-} --variant=minbase "$SUITE" "$root" ${MIRROR:+"$MIRROR"} ${SCRIPT:+"/usr/share/debootstrap/scripts/$SCRIPT"} > /dev/null
chmod 755 "$root" # mktemp's folder is closed to other users, and it is their / now
mount -t proc proc "$root/proc"
mount --rbind --make-rslave /sys "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t devpts devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777,size=4g tmpfs "$root/dev/shm"
cp /etc/resolv.conf /etc/hosts "$root/etc/"

as_root() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8 bash -euc "$1" < /dev/null; }
home=/home/user/openrlhf_cft
as_user() { chroot "$root" su - user -c "cd $home && $1" < /dev/null; }

project() { # Copy what git tracks, or would track.
  mkdir -p "$root$home"
  git -c safe.directory="$PWD" ls-files -z --cached --others --exclude-standard |
    tar --create --null --files-from - --file - | tar --extract --file - --directory "$root$home"
  chroot "$root" chown -R user /home/user
}

new=$(as_root "command -v g++ > /dev/null || echo yes")
as_root "apt-get update -qq && apt-get install -qqy --no-install-recommends make python3 &> /dev/null; id user > /dev/null 2>&1 || useradd --create-home --shell /bin/bash user"
project
if [ -n "$new" ]; then
  say "without the system's packages: all that is missing in one message, and nothing is downloaded"
  if said=$(as_user "make setup" 2>&1); then fail "the set-up does not miss its packages"; fi
  echo "$said"
  for package in g++ git python3-dev python3-venv libnuma1; do
    grep -q "^Debian, Ubuntu: sudo apt-get install .*\b${package//+/\\+}" <<< "$said" || fail "$package is not named"
  done
  [ ! -e "$root$home/.venv" ] || fail "an environment was begun"
fi
readme=$(grep -oP '^ *sudo \Kapt-get install .*' README.md)
for package in g++ git libnuma1 make python3-dev python3-venv; do
  [[ " $readme " == *" $package "* ]] || fail "the README does not name $package: $readme"
done

say "the Dockerfile's lines"
runner=as_root
while read -r instruction arguments; do
  case $instruction in
    USER) runner=as_user ;;
    COPY) project ;;
    RUN)
      echo "RUN $arguments"
      [[ $arguments == useradd* ]] && continue # done above
      case $arguments in
        *apt-get*) $runner "$arguments" &> "$root/tmp/apt.log" || { cat "$root/tmp/apt.log"; fail "it failed"; } ;;
        *) $runner "$arguments" ;;
      esac
      # A site's own certificates: its packages may come through a proxy.
      [[ $arguments == *ca-certificates* ]] && cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
      ;;
  esac
done < <(grep -vE '^(#|$)' Dockerfile)
as_user ".venv/bin/python --version; .venv/bin/python -c 'import torch; print(\"torch\", torch.__version__)'; du -sh .venv"

if [ -n "${WHOLE:-}" ]; then
  for target in quickstart test; do
    grep -q "^    make $target " README.md || fail "the README has no line \`make $target\`"
    say "make $target"
    as_user "make $target"
  done
else
  say "quickstart on 16 and 8 questions"
  as_user ".venv/bin/python examples/make_questions.py --output_dir runs/few --train 16 --test 8"
  as_user "TRAIN=runs/few/train.jsonl TEST=runs/few/test.jsonl make quickstart"
  say "the light tests"
  as_user "make test-light"
fi
say "done"
