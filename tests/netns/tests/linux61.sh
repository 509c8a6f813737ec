# Runs in the oracle VM, in /in, where rvsd, ipvsadm and rvs are.
set -u
chmod +x rvsd ipvsadm rvs
echo "Linux $(uname -r)"
i=1
for n in client rs1 rs2; do
  ip netns add $n
  ip link add v-$n type veth peer name eth0 netns $n
  ip link set v-$n up; ip -n $n link set eth0 up; ip -n $n link set lo up
  ip addr add 10.0.$i.1/24 dev v-$n; ip -n $n addr add 10.0.$i.2/24 dev eth0
  ip -n $n route add default via 10.0.$i.1
  i=$((i + 1))
done
ip addr add 10.9.9.9/32 dev lo
for n in rs1 rs2; do
  ip netns exec $n socat TCP-LISTEN:80,fork,reuseaddr SYSTEM:"echo $n" &
done
mkdir -p /run/rvs
./rvsd --connections 4096 --services 256 --destinations 1024 2>/run/rvsd.log &
rvsd=$!
for _ in $(seq 3000); do kill -0 $rvsd 2>/dev/null || break; grep -q 'rvsd: ready' /run/rvsd.log && break; sleep 0.1; done
cat /run/rvsd.log >&2
echo "privileges: $(sed -n 's/^CapEff:.//p; s/^NoNewPrivs:.//p' /proc/$rvsd/status | xargs)"
# An interface that comes later.
ip link add late type veth peer name late-peer
ip link set late up
for _ in $(seq 100); do bpftool net show | grep -q '^late(.*rvs_tc' && break; sleep 0.1; done
# The server that is added last comes first.
./ipvsadm -A -t 10.9.9.9:80 -s rr || exit 1
./ipvsadm -a -t 10.9.9.9:80 -r 10.0.3.2:80 -m || exit 1
./ipvsadm -a -t 10.9.9.9:80 -r 10.0.2.2:80 -m || exit 1
for n in rs1 rs2; do
  for _ in $(seq 100); do ip netns exec $n ss -ltn | grep -q ':80 ' && break; sleep 0.1; done
done
answers=
for _ in 1 2 3 4; do
  answers="$answers $(ip netns exec client timeout 10 socat -u TCP:10.9.9.9:80 -)"
done
echo "answers:$answers"
./ipvsadm -Ln --stats
bpftool net show
# More destinations than a call of a loop looks at: the first, of the greatest weight, is to be chosen.
chosen=
for s in lc wlc sed nq; do
  port=$((${port:-89} + 1))
  (
    echo "-A -t 10.9.9.9:$port -s $s"
    for n in $(seq 40); do echo "-a -t 10.9.9.9:$port -r 10.0.3.$((n + 100)):80 -m"; done
    echo "-a -t 10.9.9.9:$port -r 10.0.2.2:80 -m -w 9"
  ) | ./ipvsadm -R || exit 1
  chosen="$chosen $s: $(ip netns exec client timeout 10 socat -u TCP:10.9.9.9:$port,connect-timeout=3 -)"
done
echo "of many:$chosen"
# The director as a client and as a real server.
socat TCP-LISTEN:18080,fork,reuseaddr SYSTEM:"echo director" &
ip route add 10.9.8.8 via 10.0.1.2
./ipvsadm -A -t 10.9.9.9:81 -s rr || exit 1
./ipvsadm -a -t 10.9.9.9:81 -r 10.0.1.1:18080 -m || exit 1
./ipvsadm -A -t 10.9.8.8:80 -s rr || exit 1
./ipvsadm -a -t 10.9.8.8:80 -r 10.0.2.2:80 -m || exit 1
for _ in $(seq 100); do ss -ltn | grep -q ':18080 ' && break; sleep 0.1; done
echo "client to director: $(ip netns exec client timeout 10 socat -u TCP:10.9.9.9:81 -)"
echo "director to itself: $(timeout 10 socat -u TCP:10.9.9.9:81 -)"
echo "director to servers: $(timeout 10 socat -u TCP:10.9.9.9:80 -) $(timeout 10 socat -u TCP:10.9.9.9:80 -)"
echo "director to another's address: $(timeout 10 socat -u TCP:10.9.8.8:80 -)"
echo "egress programs: $(bpftool net show | grep -c rvs_local)"
# Marks, by nftables and by rules of RVS's own.
sysctl -qw net.ipv4.ip_forward=1
nft 'add table inet t; add chain inet t in { type filter hook prerouting priority mangle; }; add rule inet t in ip daddr 10.9.7.7 meta mark set 7'
./ipvsadm -A -f 7 -s rr || exit 1
./ipvsadm -a -f 7 -r 10.0.2.2:0 -m || exit 1
./rvs mark add --dst 10.9.6.0/24 --proto tcp --dport 80-81 7 || exit 1
echo "marked by nftables: $(ip netns exec client timeout 10 socat -u TCP:10.9.7.7:80 -)"
echo "marked by a rule: $(ip netns exec client timeout 10 socat -u TCP:10.9.6.6:80 -)"
# Netfilter translates, with a rule of the host's: the server sees the director.
ip netns exec rs1 socat TCP-LISTEN:82,fork,reuseaddr SYSTEM:'echo rs1 sees $SOCAT_PEERADDR' &
cat >/run/kube.nft <<'RULES'
table ip kube {
  chain services { type nat hook prerouting priority dstnat; ip daddr 10.9.9.9 meta mark set 0x4000; }
  chain out { type nat hook postrouting priority srcnat; meta mark 0x4000 masquerade; }
}
RULES
nft -f /run/kube.nft
./rvs sysctl conntrack=1 || exit 1
./ipvsadm -A -t 10.9.9.9:83 -s rr || exit 1
./ipvsadm -a -t 10.9.9.9:83 -r 10.0.2.2:82 -m || exit 1
for _ in $(seq 100); do ip netns exec rs1 ss -ltn | grep -q ':82 ' && break; sleep 0.1; done
echo "tracked: $(ip netns exec client timeout 10 socat -u TCP:10.9.9.9:83 -)"
echo "own, tracked: $(timeout 10 socat -u TCP:10.9.9.9:83 -)"
./ipvsadm -Ln -t 10.9.9.9:83 --stats --exact | awk 'END { print "both ways: " ($4 > 3 && $5 > 3) }'
# Netfilter only tracks, and the programs route directly: the server sees the client.
ip -n rs1 addr add 10.9.9.9/32 dev lo
ip netns exec rs1 socat UDP-RECVFROM:84,fork SYSTEM:'echo $(cat) from $SOCAT_PEERADDR >/run/direct' &
./ipvsadm -A -u 10.9.9.9:84 -s rr || exit 1
./ipvsadm -a -u 10.9.9.9:84 -r 10.0.2.2:84 -g || exit 1
nft add chain ip kube passing '{ type filter hook forward priority filter; }'
nft add rule ip kube passing oifname rvs0 udp dport 84 ct state new meta mark 0x4000 counter
for _ in $(seq 100); do ip netns exec rs1 ss -lun | grep -q ':84 ' && break; sleep 0.1; done
echo hello | ip netns exec client timeout 10 socat -u - UDP:10.9.9.9:84
for _ in $(seq 100); do [ -s /run/direct ] && break; sleep 0.1; done
echo "directly: $(cat /run/direct)"
echo "tracked directly: $(nft list chain ip kube passing | grep -c 'packets 1 ') $(ip rule | grep -c 'fwmark 0x72000000/0xff000000')"
echo "egress programs that see replies: $(bpftool net show | grep -c rvs_replies)"
kill -9 $rvsd; wait $rvsd 2>/dev/null
echo "without rvsd: $(ip netns exec client timeout 10 socat -u TCP:10.9.9.9:81 -)"
./rvs down
echo "tables left: $(nft list tables | grep -c 'inet rvs')"
echo "left: $(bpftool net show | grep -c rvs_) $(sysctl -n net.ipv4.conf.lo.accept_local) $(ip rule | grep -cE 'goto|fwmark')"
exit 0
