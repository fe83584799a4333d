#!/usr/bin/env bash
# demo.sh: an appliance on ./var with a demo shipment of ten tokens, in the
# foreground until Ctrl-C. A second run keeps everything and prints the same.
# The demo's seeds are random and lie in var/demo/shipment.csv, so that the
# lines below can make codes; a real shipment's file is deleted after import.
set -euo pipefail
cd "$(dirname "$0")/.."

http=${WATCHWORD_HTTP:-127.0.0.1:8080}
radius=${WATCHWORD_RADIUS:-127.0.0.1:1812}
var=var
shipment=$var/demo/shipment.csv
export WATCHWORD_URL="http://$http" WATCHWORD_API_KEY_FILE="$var/admin.key"
unset WATCHWORD_HTTP WATCHWORD_RADIUS
ww=bin/watchword

if curl -fsS "$WATCHWORD_URL/healthz" >/dev/null 2>&1; then
  echo "A server answers at $WATCHWORD_URL already: stop it, or set WATCHWORD_HTTP and WATCHWORD_RADIUS to other addresses." >&2
  exit 1
fi
$ww serve --data-dir "$var" --http "$http" --radius "$radius" &
server=$!
trap 'kill -TERM $server 2>/dev/null || true; wait $server || true' EXIT
trap 'exit 0' INT TERM

for _ in $(seq 300); do
  kill -0 $server 2>/dev/null || { wait $server; exit 1; }
  curl -fsS "$WATCHWORD_URL/readyz" >/dev/null 2>&1 && break
  sleep 0.1
done

if [ ! -f "$shipment" ]; then
  (umask 077; mkdir -p "$var/demo"
   { echo 'serial,hexseed,type,digits,period,hash'
     for i in 1 2 3 4 5 6 7 8 9 10; do
       printf 'DEMO%04d,%s,totp,6,30,sha1\n' "$i" "$(od -An -N20 -tx1 /dev/urandom | tr -d ' \n')"
     done; } >"$shipment.new"
   mv "$shipment.new" "$shipment")
fi
have() { "$@" >/dev/null 2>&1; }
have $ww token show DEMO0001 || $ww import "$shipment"
for pair in alice:DEMO0001 bob:DEMO0002; do
  have $ww user show "${pair%%:*}" || $ww user add "${pair%%:*}"
  have $ww token assign "${pair##*:}" "${pair%%:*}"
done

seed() { sed -n "s/^$1,\([0-9a-f]*\),.*/\1/p" "$shipment"; }
# What the command line needs to know where the server is not at its default.
at=''; [ "$http" = 127.0.0.1:8080 ] || at="WATCHWORD_URL=$WATCHWORD_URL "
alice=$(seed DEMO0001) bob=$(seed DEMO0002)
cat <<EOF

Watchword is serving: HTTP on $http, RADIUS on $radius, everything in ./$var.
Alice has token DEMO0001, Bob has DEMO0002. In another terminal, in this folder:

# the code that Alice's token shows now
oathtool --totp $alice

# an application asks over HTTP: accept, and for the same code again, reject
curl -s http://$http/v1/verify -H "Authorization: Bearer \$(cat $var/admin.key)" -H 'Content-Type: application/json' -d '{"user":"alice","code":"'\$(oathtool --totp $alice)'"}'

# a VPN gateway asks over RADIUS for Bob
echo "User-Name=bob,User-Password=\$(oathtool --totp $bob),Message-Authenticator=0x00" | radclient -x $radius auth \$(cat $var/radius.secret)

# what happened, and why
${at}bin/watchword why alice
${at}bin/watchword audit list
${at}bin/watchword audit verify

Ctrl-C stops the server; 'make run' starts it again with everything kept.
EOF
wait $server
