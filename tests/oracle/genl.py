"""A client of generic netlink that uses a socket in every way: prints one JSON object a case. Runs alone: on the kernel,
and under `rvs run`. Numbers that differ from one kernel to another (families, ports) are told by what they equal."""
import array, json, os, select, socket, struct, sys, threading
REQ, MULTI, ACK, DUMP = 1, 2, 4, 0x300
def say(case, **k): print(json.dumps(dict(case=case, **k)), flush=True)
def attr(t, v): return struct.pack('=HH', 4 + len(v), t) + v + b'\0' * (-len(v) % 4)
def msg(kind, flags, cmd, body=b'', seq=7, pid=0): p = struct.pack('=BBH', cmd, 1, 0) + body; return struct.pack('=IHHII', 16 + len(p), kind, flags, seq, pid) + p
def msgs(d):
    while len(d) >= 16:
        n, kind, flags, seq, pid = struct.unpack('=IHHII', d[:16])
        yield kind, flags, seq, pid, d[16:n]
        d = d[(n + 3) & ~3:]
def attrs(d):
    o = {}
    while len(d) >= 4:
        n, t = struct.unpack('=HH', d[:4])
        if n < 4: break
        o[t & 0x3fff] = d[4:n]; d = d[(n + 3) & ~3:]
    return o
def new(): return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 16)
def name(n): return attr(2, n.encode() + b'\0')
FAM = None
def tell(me, data, frm=None, end=None):
    """messages of a datagram without the numbers that chance gives"""
    out = []
    for kind, flags, seq, pid, body in msgs(data):
        k = {2: 'ERROR', 3: 'DONE', 16: 'CTRL'}.get(kind, 'IPVS' if kind == FAM else 'other')
        r = dict(kind=k, flags=flags, seq=seq, port='mine' if pid == me else pid)
        if kind == 2: r.update(errno=-struct.unpack('=i', body[:4])[0], quoted=len(body) - 4, quoted_flags=struct.unpack('=H', body[10:12])[0], quoted_kind='IPVS' if struct.unpack('=H', body[8:10])[0] == FAM else 'other')
        elif kind == 3: r.update(code=struct.unpack('=i', body[:4])[0])
        else:
            a = attrs(body[4:]); r.update(cmd=body[0], attrs=sorted(x for x in a if k != 'CTRL' or x <= 5))
            if k == 'CTRL': r.update(name=a[2].decode().strip('\0'), version=struct.unpack('=I', a[3])[0], hdrsize=struct.unpack('=I', a[4])[0], maxattr=struct.unpack('=I', a[5])[0])
        out.append(r)
    return dict(messages=out, **({} if frm is None else dict(sender=frm)))
def get(n, s=None):
    s = s or new(); s.sendto(msg(16, REQ, 3, name(n)), (0, 0)); d, frm = s.recvfrom(65536); return d, frm, s.getsockname()[0]
d, frm, me = get('IPVS')
a = attrs(next(msgs(d))[4][4:]); FAM = struct.unpack('=H', a[1])[0]
say('getfamily IPVS', **tell(me, d, frm)); d, frm, me = get('nlctrl'); say('getfamily nlctrl', **tell(me, d, frm)); d, frm, me = get('no such'); say('getfamily of none', **tell(me, d, frm))
s = new(); d, frm, me = get('IPVS', s); one = tell(me, d, frm); d, frm, _ = get('nlctrl', s); say('two families, one socket', first=one, second=tell(me, d, frm))
s.sendto(msg(16, REQ, 3, attr(1, struct.pack('=H', FAM))), (0, 0)); say('getfamily by number', **tell(me, s.recv(65536)))
s.sendto(msg(16, REQ | DUMP, 3), (0, 0)); names = []; done = 0
while not done:
    for kind, flags, seq, pid, body in msgs(s.recv(65536)):
        if kind == 3: done = 1
        else: names.append(attrs(body[4:])[2].decode().strip('\0'))
say('all families', ipvs=names.count('IPVS'), nlctrl=names.count('nlctrl'))
def svc(port=80, more=b''): return attr(1 | 0x8000, attr(1, struct.pack('=H', 2)) + attr(2, struct.pack('=H', 6)) + attr(3, socket.inet_aton('10.9.9.1') + bytes(12)) + attr(4, struct.pack('!H', port)) + more)
CONF = attr(6, b'rr\0') + attr(7, struct.pack('=II', 0, 0xffffffff)) + attr(8, bytes(4)) + attr(9, b'\xff' * 4)
def dst(i, w=1): return attr(2 | 0x8000, attr(1, struct.pack('!I', 0x0a010000 + i) + bytes(12)) + attr(2, struct.pack('!H', 80)) + attr(3, bytes(4)) + attr(4, struct.pack('=I', w)) + attr(5, bytes(4)) + attr(6, bytes(4)))
def ask(case, s, m, **k):
    s.sendto(m, (0, 0)); s.settimeout(1); got = []
    try:
        while 1:
            d, frm = s.recvfrom(65536); t = tell(s.getsockname()[0], d, frm); got.append(t)
            if any(x['kind'] in ('ERROR', 'DONE') for x in t['messages']): break
            s.settimeout(0.3)
    except TimeoutError: pass
    s.settimeout(None); say(case, answers=got, **k)
ask('flush, acknowledged', s, msg(FAM, REQ | ACK, 17)); ask('flush, not acknowledged', s, msg(FAM, REQ, 17)); ask('get info', s, msg(FAM, REQ, 15)); ask('get info, acknowledged', s, msg(FAM, REQ | ACK, 15)); ask('get config', s, msg(FAM, REQ, 13))
ask('new service', s, msg(FAM, REQ | ACK, 1, svc(80, CONF), seq=99, pid=4242)); ask('new service again', s, msg(FAM, REQ | ACK, 1, svc(80, CONF))); ask('new service again, not acknowledged', s, msg(FAM, REQ, 1, svc(80, CONF)))
ask('get service', s, msg(FAM, REQ, 4, svc())); ask('dump of services', s, msg(FAM, REQ | DUMP, 4)); ask('get no such service', s, msg(FAM, REQ, 4, svc(81))); ask('dump of no service\'s destinations', s, msg(FAM, REQ | DUMP, 8, svc(81)))
ask('no such command', s, msg(FAM, REQ | ACK, 77)); ask('not a request', s, msg(FAM, ACK, 15)); ask('not a request, not acknowledged', s, msg(FAM, 0, 15))
for o, case in ((10, 'NETLINK_CAP_ACK'),):
    x = new(); x.setsockopt(270, o, 1); ask('error with ' + case, x, msg(FAM, REQ | ACK, 1, svc(80, CONF)))
# two requests, one datagram; one for each family
s.sendto(msg(FAM, REQ | ACK, 5, svc() + dst(1), seq=1) + msg(16, REQ, 3, name('nlctrl'), seq=2) + msg(FAM, REQ | ACK, 5, svc() + dst(2), seq=3), (0, 0)); me = s.getsockname()[0]
say('three requests in a datagram', answers=[tell(me, s.recv(65536)) for _ in range(3)])
# ways to send and to receive
x = new(); x.connect((0, 0)); x.send(msg(FAM, REQ, 15)); say('connected, send, recv', **tell(x.getsockname()[0], x.recv(65536)), peer=x.getpeername()); os.write(x.fileno(), msg(FAM, REQ, 15)); say('write, read', **tell(x.getsockname()[0], os.read(x.fileno(), 65536)))
x = new(); x.bind((0, 0)); me = x.getsockname()[0]; x.sendmsg([msg(FAM, REQ, 15)[:20], msg(FAM, REQ, 15)[20:]], [], 0, (0, 0)); d, anc, fl, frm = x.recvmsg(65536, 0, socket.MSG_PEEK); e, anc, fl, frm2 = x.recvmsg(10, 0, socket.MSG_PEEK); n = x.recv_into(bytearray(10), 10, socket.MSG_PEEK | socket.MSG_TRUNC); f, anc, fl2, frm3 = x.recvmsg(65536)
say('sendmsg, peek, truncation', same=d == f, senders=[frm, frm2, frm3], truncated=bool(fl & socket.MSG_TRUNC), length=n == len(d), whole=not fl2 & socket.MSG_TRUNC)
x = new(); x.setsockopt(1, 16, 1); x.sendto(msg(FAM, REQ, 15), (0, 0)); d, anc, fl, frm = x.recvmsg(65536, 1000); say('credentials', sender=frm, control=[(l, t, list(struct.unpack('=iII', v))) for l, t, v in anc])
x = new(); x.setsockopt(270, 3, 1); x.sendto(msg(FAM, REQ, 15), (0, 0)); d, anc, fl, frm = x.recvmsg(65536, 1000); say('packet information', control=[(l, t, v.hex()) for l, t, v in anc])
x = new(); p = select.poll(); p.register(x, 1); before = p.poll(0); x.sendto(msg(FAM, REQ, 15), (0, 0)); say('poll', before=len(before), after=len(p.poll(1000)), read=len(x.recv(65536)) > 0, then=len(p.poll(0)))
x = new(); y = x.dup(); x.sendto(msg(FAM, REQ, 15), (0, 0)); say('a duplicate reads it', **tell(x.getsockname()[0], *y.recvfrom(65536)))
x = new(); x.bind((0, 0)); me = x.getsockname()[0]
if os.fork() == 0: x.sendto(msg(FAM, REQ, 15, seq=8), (0, 0)); os._exit(0)
os.wait(); say('a child asks, its parent reads', **tell(me, *x.recvfrom(65536)))
x = new(); x.bind((0, 0)); t = threading.Thread(target=lambda: x.sendto(msg(FAM, REQ, 15), (0, 0))); timer = threading.Timer(0.2, t.start); timer.start(); say('a blocked reader is woken', **tell(x.getsockname()[0], *x.recvfrom(65536)))
x = new(); x.setblocking(False); x.sendto(msg(FAM, REQ, 15), (0, 0)); x.recv(65536)
try: x.recv(65536); e = 0
except BlockingIOError: e = 11
say('nothing left', errno=e)
x = new(); x.setsockopt(1, 20, struct.pack('=qq', 0, 200000))
try: os.read(x.fileno(), 100); e = 0
except BlockingIOError: e = 11
x.sendto(msg(FAM, REQ, 15), (0, 0)); say('a receive timeout', errno=e, then=len(os.read(x.fileno(), 65536)) > 0)
# a long dump into a short queue, read slowly
x = new(); x.setsockopt(1, 8, 4096); x.setsockopt(1, 7, 4096)
for i in range(3, 1000): s.sendto(msg(FAM, REQ | ACK, 5, svc() + dst(i)), (0, 0)); s.recv(65536)
x.sendto(msg(FAM, REQ | DUMP, 8, svc()), (0, 0)); n, done, seen, flagged = 0, 0, set(), True
while not done:
    d = x.recv(65536)
    for kind, flags, seq, pid, body in msgs(d):
        flagged &= bool(flags & MULTI)
        if kind == 3: done = 1
        else: n += 1; seen.add(attrs(attrs(body[4:])[2])[1][:4])
say('a long dump, a short queue', destinations=n, distinct=len(seen), multi=flagged)
ask('afterwards', x, msg(FAM, REQ | ACK, 15))
ask('flush', s, msg(FAM, REQ | ACK, 17))
s.setsockopt(270, 11, 1); s.sendto(msg(16, REQ | ACK, 3, name('IPVS')), (0, 0)); me = s.getsockname()[0]; say('NETLINK_EXT_ACK', answers=[tell(me, s.recv(65536)) for _ in range(2)])
r = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); r.sendto(struct.pack('=IHHII', 17, 18, REQ | DUMP, 5, 0) + b'\0', (0, 0)); d, frm = r.recvfrom(65536); say('another protocol of netlink', kind=next(msgs(d))[0], sender=frm)
