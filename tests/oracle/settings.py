"""What sysctls of net.ipv4.vs do to packets, and lblc and lblcr where their settings or a change of the service matter."""
from lib import *
c, r = setup(); rec = Rec('settings')
sh('ipvsadm -A -t 10.9.9.9:9 -s rr')
port = [1000]
DEFAULT = {}
class Run:
    """One scenario: steps in order, with a port of the VIP of its own."""
    def __init__(s, name, options, dests=((0, 1), (1, 1)), forward='-m', proto='-t', extra=''):
        port[0] += 1; s.p = port[0]; s.name, s.steps, s.v = name, [], f'{proto} {V}:{port[0]}'; s.forward, s.extra = forward, extra
        s.cmd(f'-A {s.v} {options}')
        for i, w in dests: s.add(i, w)
    def cmd(s, a): x = shx('ipvsadm ' + a); assert x['rc'] == 0, (a, x); s.steps.append(dict(cmd=a))
    def add(s, i, w, o=''): s.cmd(f'-a {s.v} -r {rs(i)}:{s.p} {s.forward} -w {w} {s.extra} {o}'.strip())
    def edit(s, i, w): s.cmd(f'-e {s.v} -r {rs(i)}:{s.p} {s.forward} -w {w} {s.extra}'.strip())
    def delete(s, i): s.cmd(f'-d {s.v} -r {rs(i)}:{s.p}')
    def set(s, k, v): DEFAULT.setdefault(k, vs(k)); vs(k, v); s.steps.append(dict(set=[k, v]))
    def sleep(s, t): time.sleep(t); s.steps.append(dict(sleep=t))
    def send(s, fl, sp=40000, src=C, dst=V, frm='c', i=0):
        """flags, or 'udp'; from a client, or the real server that `i` is"""
        c.recv(0.002); r.recv(0.002)
        a = (src, sp, dst, s.p) if frm == 'c' else (rs(i), s.p, src, sp)
        p = udp(*a) if fl == 'udp' else tcp(*a, fl)
        (c.send(fromc(p)) if frm == 'c' else r.send(fromr(p, i)))
        fr, fc = r.recv(0.02), c.recv(0.01)
        to = [socket.inet_ntoa(f[30:34]) if s.forward == '-m' else rs(f[5] - 11) for f in fr]
        s.steps.append(dict(packet=list(a) + [fl], to=to, to_client=[ftxt(f).split(' ', 1)[1] for f in fc])); return to
    def note(s):
        x = [x for x in conns() if x['vp'] == s.p]; time.sleep(0.005); x += [y for y in conns() if y['vp'] == s.p and not any(all(y[k] == z[k] for k in ('c', 'cp', 'd')) for z in x)]
        s.steps.append(dict(rows=[[y['proto'], y['c'], y['cp'], y['d'], y['state'], y['expires']] for y in x if y['expires'] > 0], dests={k[1]: list(v) for k, v in dests().items() if k[0] == s.p}))
    def done(s):
        rec(scenario=s.name, steps=s.steps)
        print('##', s.name); [print('    ', json.dumps(x)) for x in s.steps]
        sh(f'ipvsadm -D {s.v}')
        for k, v in DEFAULT.items(): vs(k, v)
for fl in ('S', 'SA', 'A', 'F', 'FA', 'R', 'RA', ''):
    for fw in ('-m', '-g'):
        s = Run(f'sloppy_tcp: {fl or "no flags"} {fw}', '-s rr', forward=fw); s.set('sloppy_tcp', 1); s.send(fl); s.note(); s.send(fl); s.note(); s.done()
for rate in (1, 2, 3, 0, -1):
    s = Run(f'drop_packet=3 am_droprate={rate}', '-s rr'); s.set('am_droprate', rate); s.set('drop_packet', 3); [s.send('S', 40000 + k) for k in range(8)]; s.send('A', 40000); s.note(); s.set('drop_packet', 0); s.send('S', 40100); s.done()
s = Run('drop_packet=3 am_droprate=3 UDP', '-s rr', proto='-u'); s.set('am_droprate', 3); s.set('drop_packet', 3); [s.send('udp', 40000 + k) for k in range(8)]; s.send('udp', 40000); s.set('am_droprate', 5); s.set('drop_packet', 3); [s.send('udp', 41000 + k) for k in range(8)]; s.done()
s = Run('drop_packet=1 amemthresh=0', '-s rr'); s.set('amemthresh', 0); s.set('drop_packet', 1); [s.send('S', 40000 + k) for k in range(4)]; s.done()
s = Run('drop_packet=1 amemthresh=100000000', '-s rr'); s.set('amemthresh', 100000000); s.set('drop_packet', 1); s.steps.append(dict(drop_packet=vs('drop_packet'))); [s.send('S', 40000 + k) for k in range(4)]; s.set('amemthresh', 0); time.sleep(2.5); s.steps.append(dict(later=vs('drop_packet'))); s.send('S', 41000); s.done()
for k in ('drop_entry', 'secure_tcp'):
    s = Run(f'{k}=1 amemthresh=100000000', '-s rr'); s.set('amemthresh', 100000000); s.set(k, 1); s.steps.append({k: vs(k)}); s.send('S'); s.send('SA', frm='r', i=0); s.send('SA', frm='r', i=1); s.note(); s.set('amemthresh', 0); time.sleep(2.5); s.steps.append(dict(later=vs(k))); s.note(); s.done()
OPEN = ['S', 'SA', 'A']
def opened(s, sp=40000):
    i = int(s.send('S', sp)[0].split('.')[-1]) - 11; s.send('SA', sp, frm='r', i=i); s.send('A', sp); return i
for opt in ('', ' -p 60'):
    for fl in ('S', 'SA', 'SF', 'SP'):
        s = Run(f'reuse in TIME_WAIT by {fl}{opt}', '-s rr' + opt); i = opened(s); s.send('FA'); s.send('FA', frm='r', i=i); s.note(); s.send(fl); s.note(); s.send('S', 40001); s.note(); s.done()
    s = Run(f'reuse in CLOSE, weight 0, expire_nodest_conn=1{opt}', '-s rr' + opt); s.set('expire_nodest_conn', 1); i = opened(s); s.send('R'); s.edit(i, 0); s.send('S'); s.note(); s.done()
    s = Run(f'expire_nodest_conn=1 conn_reuse_mode=0, weight 0{opt}', '-s rr' + opt); s.set('expire_nodest_conn', 1); s.set('conn_reuse_mode', 0); i = opened(s); s.edit(i, 0); s.send('S'); s.note(); s.done()
for q in (0, 1):
    s = Run(f'persistent, expire_nodest_conn=1, expire_quiescent_template={q}: SYN_RECV, weight 0, SYN again', '-s rr -p 60'); s.set('expire_nodest_conn', 1); s.set('expire_quiescent_template', q); i = int(s.send('S')[0].split('.')[-1]) - 11; s.edit(i, 0); s.send('S'); s.note(); s.send('S', 40001); s.note(); s.done()
    s = Run(f'persistent, expire_nodest_conn=1, expire_quiescent_template={q}: ESTABLISHED, weight 0, SYN again', '-s rr -p 60'); s.set('expire_nodest_conn', 1); s.set('expire_quiescent_template', q); i = opened(s); s.edit(i, 0); s.send('S'); s.note(); s.send('S', 40001); s.note(); s.done()
s = Run('persistent, expire_nodest_conn=1: two SYN_RECV, deleted, data on both', '-s rr -p 60'); s.set('expire_nodest_conn', 1); i = int(s.send('S')[0].split('.')[-1]) - 11; s.send('S', 40001); s.delete(i); s.send('A'); s.note(); s.send('A', 40001); s.note(); s.done()
s = Run('persistent, expire_nodest_conn=1: two ESTABLISHED, deleted, data on both', '-s rr -p 60'); s.set('expire_nodest_conn', 1); i = opened(s); opened(s, 40001); s.delete(i); s.send('A'); s.note(); s.send('A', 40001); s.note(); s.send('S', 40002); s.note(); s.done()
s = Run('expire_nodest_conn=1: UDP, deleted', '-s rr', proto='-u'); s.set('expire_nodest_conn', 1); i = int(s.send('udp')[0].split('.')[-1]) - 11; s.delete(i); s.send('udp'); s.note(); s.send('udp'); s.done()
s = Run('expire_nodest_conn=1: UDP, weight 0', '-s rr', proto='-u'); s.set('expire_nodest_conn', 1); i = int(s.send('udp')[0].split('.')[-1]) - 11; s.edit(i, 0); s.send('udp'); s.note(); s.done()
s = Run('expire_nodest_conn=1: reply of a deleted destination', '-s rr'); s.set('expire_nodest_conn', 1); i = opened(s); s.delete(i); s.send('A', frm='r', i=i); s.note(); s.done()
s = Run('secure_tcp=3 while a connection is in SYN_RECV', '-s rr'); i = int(s.send('S')[0].split('.')[-1]) - 11; s.set('secure_tcp', 3); s.send('A'); s.note(); s.send('SA', frm='r', i=i); s.note(); s.set('secure_tcp', 0); s.send('A'); s.note(); s.done()
# lblc and lblcr
for S in ('lblc', 'lblcr'):
    W = ((0, 2), (1, 2), (2, 3))
    s = Run(f'{S}: -E with the same scheduler', f'-s {S}', W); [s.send('S', 40000 + k) for k in range(6)]; s.cmd(f'-E {s.v} -s {S}'); [s.send('S', 41000 + k) for k in range(6)]; s.done()
    s = Run(f'{S}: -E with another scheduler and back', f'-s {S}', W); [s.send('S', 40000 + k) for k in range(6)]; s.cmd(f'-E {s.v} -s wlc'); s.cmd(f'-E {s.v} -s {S}'); [s.send('S', 41000 + k) for k in range(6)]; s.done()
    s = Run(f'{S}: deleted and added again', f'-s {S}', W); i = int(s.send('S')[0].split('.')[-1]) - 11; s.delete(i); s.send('S', 40001); s.add(i, dict(W)[i]); [s.send('S', 41000 + k) for k in range(8)]; s.done()
    s = Run(f'{S}: deleted and added again at once', f'-s {S}', W); i = int(s.send('S')[0].split('.')[-1]) - 11; s.delete(i); s.add(i, dict(W)[i]); [s.send('S', 41000 + k) for k in range(8)]; s.done()
    s = Run(f'{S}: weight 0 and back', f'-s {S}', W); i = int(s.send('S')[0].split('.')[-1]) - 11; s.edit(i, 0); s.send('S', 40001); s.send('S', 40002); s.edit(i, dict(W)[i]); [s.send('S', 41000 + k) for k in range(8)]; s.done()
    s = Run(f'{S}: -x 3', f'-s {S}', W, extra='-x 3'); [s.send('S', 41000 + k) for k in range(12)]; s.note(); s.done()
    s = Run(f'{S}: the service deleted and added again', f'-s {S}', W); [s.send('S', 40000 + k) for k in range(5)]; s.cmd(f'-D {s.v}'); s.cmd(f'-A {s.v} -s {S}'); [s.add(*x) for x in W]; [s.send('S', 41000 + k) for k in range(8)]; s.done()
    s = Run(f'{S}: UDP -x 3', f'-s {S}', W, extra='-x 3', proto='-u'); [s.send('udp', 41000 + k) for k in range(12)]; s.note(); s.done()
    s = Run(f'{S}: idle ones of a large set', f'-s {S}', ((0, 1), (1, 1), (2, 1), (3, 1), (4, 1))); [s.send('S', 40000 + k) for k in range(14)]; s.send('R', 40000); s.send('R', 40003); s.send('R', 40007); [s.send('S', 41000 + k) for k in range(8)]; s.done()
for e in (1, 2):
    s = Run(f'lblcr: lblcr_expiration={e}, the set shrinks', '-s lblcr', ((0, 1), (1, 1), (2, 1), (3, 1))); s.set('lblcr_expiration', e); [s.send('S', 40000 + k) for k in range(9)]; s.sleep(e + 0.5); s.send('S', 41000); s.send('S', 41001); s.send('S', 41002); s.sleep(e + 0.5); [s.send('S', 42000 + k) for k in range(6)]; s.sleep(e + 0.5); [s.send('S', 43000 + k) for k in range(6)]; s.sleep(e + 0.5); s.send('S', 44000); s.sleep(e + 0.5); [s.send('S', 45000 + k) for k in range(6)]; s.done()
s = Run('lblc: two destinations of weight 0', '-s lblc', ((0, 0), (1, 0))); s.send('S'); s.edit(0, 1); s.send('S', 40001); s.done()
