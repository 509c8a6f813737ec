"""FTP through the kernel's ip_vs_ftp: what becomes of PASV, EPSV, PORT and EPRT on a masqueraded control connection, which
connections are entered, and where the data connections' first packets go. Recorded as ftp.jsonl."""
from lib import *
print(sh('modprobe ip_vs; modprobe ip_vs_ftp; lsmod | grep -E "ip_vs_ftp|nf_nat"', check=False))
b = Bench('ftp')
print(open('/proc/net/ip_vs_app').read())
sh('ipvsadm -A -t 10.9.1.1:21 -s rr; ipvsadm -a -t 10.9.1.1:21 -r 10.1.0.11:21 -m; ipvsadm -A -t [fd09::1]:21 -s rr; ipvsadm -a -t [fd09::1]:21 -r [fd01::11]:21 -m')
def opened(f, cp):
    """an established control connection: seq of the client 1001, of the server 5001"""
    c, v, r = ((C, V, rs(0)), (C6, V6, rs6(0)))[f]
    b.case('open', 'c', tcp(c, cp, v, 21, 'S', seq=1000), show=False); b.case('open', 'r', tcp(r, 21, c, cp, 'SA', seq=5000, ack=1001), show=False)
    b.case('open', 'c', tcp(c, cp, v, 21, 'A', seq=1001, ack=5001), show=False)
    seq = dict(c=1001, s=5001)
    def client(t, what=None): p = t.encode(); b.case(what or t.strip(), 'c', tcp(c, cp, v, 21, 'PA', seq=seq['c'], ack=seq['s'], pl=p)); seq['c'] += len(p)
    def server(t, what=None): p = t.encode(); b.case(what or t.strip(), 'r', tcp(r, 21, c, cp, 'PA', seq=seq['s'], ack=seq['c'], pl=p)); seq['s'] += len(p)
    return client, server
cp = 40000
# Passive, IPv4: the address gets shorter, what comes after it, and the data connection.
client, server = opened(0, cp); client('PASV\r\n'); server('227 Entering Passive Mode (10,1,0,11,200,13).\r\n')
b.case('ack of 227', 'c', tcp(C, cp, V, 21, 'A', seq=1007, ack=5001 + 47)); server('150 Ok\r\n')
b.case('data syn', 'c', tcp(C, 50001, V, 200 * 256 + 13)); b.case('data synack', 'r', tcp(rs(0), 200 * 256 + 13, C, 50001, 'SA')); b.case('second data syn', 'c', tcp(C, 50002, V, 200 * 256 + 13))
for n, (cmd, reply) in enumerate([('EPSV\r\n', '229 Entering Extended Passive Mode (|||51214|)\r\n'), ('PORT 10,0,0,2,195,90\r\n', '200 PORT ok\r\n'), ('EPRT |1|10.0.0.2|50011|\r\n', '200 EPRT ok\r\n'), ('PORT 10,0,0,77,195,91\r\n', '200 another host\r\n'),
        ('PASV\r\n', '227 (10,1,0,11,3,4)\r\n'), ('PASV\r\n', '227 =10,1,0,11,200,20\r\n'), ('PASV\r\n', '227 other (10,1,0,12,200,21)\r\n'), ('NOOP\r\n', '227 unasked (10,1,0,11,200,22)\r\n'), ('pasv\r\n', '227 lower (10,1,0,11,200,23)\r\n'), ('PASV\r\n', 'x\r\n227 second line (10,1,0,11,200,24)\r\n'),
        ('PASV\r\n', '227-multi (10,1,0,11,200,25)\r\n'), ('PASV\r\n', '227 a (10,1,0,11,256,1)\r\n'), ('PASV\r\n', '227 no end (10,1,0,11,200,27'), ('EPSV ALL\r\n', '229 Entering Extended Passive Mode (|||51228|)\r\n'), ('EPSV 1\r\n', '229 Entering Extended Passive Mode (|||51229|)\r\n'), ('EPSV\r\n', '229 ok (|||51230|)\r\n')]):
    cp += 1; client, server = opened(0, cp); client(cmd); server(reply)
    if n == 0: b.case('data syn', 'c', tcp(C, 50003, V, 51214))
    if n == 1: b.case('data syn', 'r', tcp(rs(0), 20, C, 50010)); b.case('data synack', 'c', tcp(C, 50010, V, 20, 'SA'))
    if n == 2: b.case('data syn', 'r', tcp(rs(0), 20, C, 50011))
cp = 41000
for n, (cmd, reply) in enumerate([('EPSV\r\n', '229 Entering Extended Passive Mode (|||51214|)\r\n'), ('EPRT |2|fd00::2|50012|\r\n', '200 EPRT ok\r\n'), ('EPSV 2\r\n', '229 Entering Extended Passive Mode (|||51231|)\r\n')]):
    cp += 1; client, server = opened(1, cp); client(cmd); server(reply)
    if n == 0: b.case('data syn', 'c', tcp(C6, 50003, V6, 51214)); b.case('data synack', 'r', tcp(rs6(0), 51214, C6, 50003, 'SA'))
    if n == 1: b.case('data syn', 'r', tcp(rs6(0), 20, C6, 50012))
print(open('/proc/net/ip_vs_app').read(), sh('ipvsadm -Lnc; ipvsadm -Ln; ipvsadm -Ln --stats'))
