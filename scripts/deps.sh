#!/usr/bin/env bash
# deps.sh run|test: installs the Debian packages that are missing, and nothing
# else. Asks for root through sudo where it has to.
set -euo pipefail

run=(gcc libc6-dev softhsm2 libfido2-dev pkg-config)
# Gateways, which the tests have ask, and what speaks to them.
gateways=(libpam-radius-auth pamtester openvpn openvpn-auth-radius ocserv openconnect radsecproxy iputils-ping)
# Those whose services would start with the machine next time.
off=(ocserv openvpn radsecproxy)
test=(oathtool openssl jose fido2-tools xmlsec1 gnupg zip 7zip freeradius freeradius-utils eapoltest opensc pskc-utils libnss3 libnss3-tools libyubikey-dev postgresql postgresql-client sqlite3 chromium zbar-tools curl jq iproute2 procps rsyslog rsyslog-openssl "${gateways[@]}")

case "${1:-}" in
run) want=("${run[@]}" oathtool freeradius-utils curl) ;;
test) want=("${run[@]}" "${test[@]}") ;;
*) echo "usage: deps.sh run|test" >&2; exit 2 ;;
esac

missing=()
for p in "${want[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "deps.sh: these packages are missing, and installing them needs root or sudo: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi

# The packages' own services are not wanted: a test starts what it needs, on
# ports of its own.
policy=/usr/sbin/policy-rc.d
made=
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod 755 "$policy"
  made=1
fi
trap '[ -z "$made" ] || "${as_root[@]}" rm -f "$policy"' EXIT

echo "installing ${missing[*]}"
install() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends "${missing[@]}" >/dev/null; }
install 2>/dev/null || { "${as_root[@]}" apt-get update -qq; install; }
if command -v systemctl >/dev/null; then
  for p in "${off[@]}"; do
    case " ${missing[*]} " in *" $p "*) "${as_root[@]}" systemctl --quiet disable "$p.service" 2>/dev/null || true ;; esac
  done
fi
