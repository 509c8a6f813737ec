"""The files of /proc/net and /proc/sys/net/ipv4/vs: empty, with services of all kinds, with connections."""
from lib import *
b = Bench('proc')
FILES = 'ip_vs ip_vs_conn ip_vs_conn_sync ip_vs_stats ip_vs_stats_percpu ip_vs_app'.split()
def note(case, rules=''): b.rec(case=case, rules=rules, files={f: open('/proc/net/' + f).read() for f in FILES}, lnc=sh('ipvsadm -Lnc'), modes={f: oct(os.stat('/proc/net/' + f).st_mode) for f in FILES})
note('empty')
D = '/proc/sys/net/ipv4/vs/'
b.rec(case='sysctls', files={f: open(D + f).read() for f in sorted(os.listdir(D)) if os.stat(D + f).st_mode & 0o400}, modes={f: oct(os.stat(D + f).st_mode) for f in sorted(os.listdir(D))})
rules = f'''-A -t {V}:80 -s wrr
-a -t {V}:80 -r {rs(0)}:8080 -m -w 3
-a -t {V}:80 -r {rs(1)}:80 -g -w 1
-a -t {V}:80 -r {rs(2)}:80 -i -w 0
-A -t {V}:81 -s rr
-a -t {V}:81 -r {rs(0)}:81 -m -w 1
-A -u {V}:53 -s sh -b sh-port,sh-fallback
-a -u {V}:53 -r {rs(3)}:53 -m -w 2147483647
-A -t {V}:443 -s wlc -p 300 -M 255.255.255.0
-a -t {V}:443 -r {rs(4)}:443 -m -w 1
-A -t {V}:0 -s rr -p 60
-a -t {V}:0 -r {rs(5)}:0 -m -w 1
-A -f 7 -s rr -p 50
-a -f 7 -r {rs(6)}:0 -g -w 1
-A -f 4000000000 -s lc
-A -t [{V6}]:80 -s rr
-a -t [{V6}]:80 -r [{rs6(0)}]:8080 -m -w 3
-a -t [{V6}]:80 -r {rs(7)}:80 -i -w 1
-A -u [{V6}]:53 -s rr -p 90 -M 64
-a -u [{V6}]:53 -r [{rs6(1)}]:53 -g -w 1
-A -f 9 -6 -s rr
-a -f 9 -6 -r {rs6(2)} -g -w 1
'''
sh('ipvsadm -R', rules); note('services', rules)
sh('nft -f -', 'table ip m { chain p { type filter hook prerouting priority -150; ip daddr 10.9.2.0/24 meta mark set 7; }; }'); sh('ip addr add 10.9.2.1/32 dev lo')
def c(p): b.c.send(fromc(p)); time.sleep(0.02)
for k in range(4): c(tcp(C, 40000 + k, V, 80, 'S'))
c(tcp(C, 40000, V, 80, 'A'))
c(tcp(C, 40010, V, 81, 'S')); c(tcp(C, 40011, V, 81, 'S')); c(tcp(C, 40010, V, 81, 'A')); c(tcp(C, 40011, V, 81, 'R'))
c(udp(C, 40000, V, 53)); c(tcp(C, 40000, V, 443, 'S')); c(tcp(C, 40000, V, 7000, 'S')); c(tcp(C, 40000, '10.9.2.1', 80, 'S'))
c(tcp(C6, 40000, V6, 80, 'S')); c(tcp(C6, 40001, V6, 80, 'S')); c(udp(C6, 40000, V6, 53)); c(udp(C6, 40001, V6, 53))
note('connections', rules)
time.sleep(4.5); note('connections, 4.5 s later', rules)
c(tcp(C, 40020, V, 81, 'S')); time.sleep(2.5); note('rates', rules)
sh(f'ipvsadm -D -t {V}:81'); time.sleep(2.5); note('a service that had connections deleted', rules)
sh(f'ipvsadm -Z -t {V}:80'); time.sleep(2.5); note('one service zeroed', rules)
sh('ipvsadm -Z'); time.sleep(2.5); note('all zeroed', rules)
sh('ipvsadm -C; ipvsadm -Z; modprobe -a ip_vs_ftp ip_vs_pe_sip')
rules = f'''-A -u {V}:53 -s rr -o
-A -u [{V6}]:53 -s rr -o
-A -f 7 -s rr -o
-A -f 8 -s rr -o -p 50
-A -u {V}:54 -s rr -o -p 50
-A -u {V}:55 -s rr -p 50 --pe sip
-A --sctp-service {V}:80 -s rr
-a --sctp-service {V}:80 -r {rs(0)}:80 -m -w 1
-A --sctp-service [{V6}]:80 -s none
-a -u {V}:54 -r {rs(0)}:54 -m -w 1
'''
sh('ipvsadm -R', rules); note('one-packet scheduling, SCTP, persistence engine, application helper', rules)
