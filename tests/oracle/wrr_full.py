"""wrr where all destinations are overloaded, and what it picks once they are not: after `refused` packets that found no destination."""
from lib import *
b = Bench('wrr_full')
sh('ipvsadm -A -t 10.9.9.9:9 -s rr; ipvsadm --set 0 0 2')
def go(cp, p):
    b.drain(); b.c.send(fromc(udp(C, cp, V, p))); f = b.r.recv(); b.c.recv(0.005)
    return socket.inet_ntoa(f[0][30:34]) if f else '-'
port = 5000
for weights, limits in (((1, 3), (3, 1)), ((3, 1), (1, 1)), ((3, 1), (2, 1)), ((3, 1), (3, 1)), ((3, 1), (4, 1)), ((1, 2, 4), (2, 1, 2)), ((4, 2, 1), (3, 1, 3)), ((4, 2, 1), (5, 1, 1)), ((2, 4), (2, 1)), ((4, 2), (2, 1)), ((4, 2), (3, 1)), ((5,), (2,)), ((6, 3), (2, 1)), ((6, 4, 2), (3, 2, 1))):
    for refused in (0, 1, 2):
        port += 1
        sh('ipvsadm -R', f'-A -u {V}:{port} -s wrr\n' + ''.join(f'-a -u {V}:{port} -r {rs(i)}:80 -m -w {w} -x {x}\n' for i, (w, x) in enumerate(zip(weights, limits))))
        fill = [go(1000 + k, port) for k in range(sum(limits))]; end = [go(2000 + k, port) for k in range(refused)]
        while any(c['vp'] == port for c in conns()): time.sleep(0.2)
        then = [go(3000 + k, port) for k in range(sum(limits))]
        b.rec(weights=weights, limits=limits, fill=fill, refused=end, then=then)
        s = lambda l: ' '.join(x[-2:] for x in l); print(weights, limits, s(fill), '|', s(end), '|', s(then), flush=True)
        sh(f'ipvsadm -D -u {V}:{port}')
