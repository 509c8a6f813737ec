# Runs in the oracle VM, in /in, where our programs and the recordings are: without an rvsd they set
# up the kernel's table.
set -u
mkdir -p /out
chmod +x ipvsadm ipvsadm-save ipvsadm-restore
python3 golden.py /in ipvsadm.jsonl cmdline.jsonl || exit 1

# Connections, of which the recordings have none: both programs show the same ones. Expiry is masked.
ip addr add 10.9.9.9/32 dev lo
ip -6 addr add fd09::9/128 dev lo
/usr/sbin/ipvsadm -C
/usr/sbin/ipvsadm -R <<RULES
-A -u 10.9.9.9:53 -s rr -p 100
-a -u 10.9.9.9:53 -r 127.0.0.1:5300 -m
-A -u [fd09::9]:53 -s rr -p 100
-a -u [fd09::9]:53 -r [::1]:5300 -m
-A -t 10.9.9.9:80 -s rr
-a -t 10.9.9.9:80 -r 127.0.0.1:8000 -m
RULES
socat TCP-LISTEN:8000,bind=127.0.0.1,fork SYSTEM:cat >/dev/null 2>&1 &
for _ in $(seq 100); do ss -ltn | grep -q ':8000 ' && break; sleep 0.1; done
echo x | timeout 10 socat -t 1 - UDP:10.9.9.9:53 >/dev/null 2>&1
echo x | timeout 10 socat -t 1 - UDP6:[fd09::9]:53 >/dev/null 2>&1
echo x | timeout 10 socat -t 1 - TCP:10.9.9.9:80 >/dev/null 2>&1
# A kernel's own order differs from boot to boot, so that no recording can be compared with.
for port in $(seq 30); do /usr/sbin/ipvsadm -A -t 10.9.8.$port:$port -s rr; done
for program in /usr/sbin/ipvsadm ./ipvsadm; do
  $program -Ln --nosort >"/out/nosort-$(dirname "$program" | tr -dc a-z)"
  for form in -Lnc '-Lnc --persistent-conn'; do
    $program $form | sed 's/ [0-9][0-9]:[0-9][0-9] / mm:ss /' | sort
  done >"/out/conns-$(dirname "$program" | tr -dc a-z)"
done
ls -l /out >&2
