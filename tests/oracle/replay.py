#!/usr/bin/env python3
"""A model of rr, wrr, lc, wlc, sed, nq, ovf, fo, sh replayed over recorded/sched_changes.jsonl: says where it and the kernel differ."""
import json, os, sys, math
N = 0
def gcd(ws):
    g = 0
    for w in ws: g = math.gcd(g, w)
    return g or 1
class D:
    def __init__(s, a, w): s.a, s.w, s.act, s.ina = a, w, 0, 0
class S:
    """destinations: newest first (the kernel adds at the head). A deleted destination keeps its place through `nxt`."""
    def __init__(s, sched, flags=()): s.d, s.sched, s.flags = [], sched, flags; s.trash = {}; s.init()
    def init(s):
        s.rr = None      # rr: last picked (None: head)
        s.cl = None; s.di = gcd([d.w for d in s.d]); s.mw = (max([d.w for d in s.d]) if s.d else 0) - (s.di - 1); s.cw = s.mw
    def upd(s):
        s.cl = None; s.di = gcd([d.w for d in s.d]); s.mw = (max([d.w for d in s.d]) if s.d else 0) - (s.di - 1)
        if s.cw > s.mw or not s.cw: s.cw = s.mw
        elif s.di > 1: s.cw = s.cw // s.di * s.di + 1
    def add(s, a, w):
        d = s.trash.pop(a, None) or D(a, w); d.w = w; s.d.insert(0, d); s.upd()
    def edit(s, a, w): next(d for d in s.d if d.a == a).w = w; s.upd()
    def delete(s, a):
        i = next(i for i, d in enumerate(s.d) if d.a == a); d = s.d.pop(i)
        if s.rr is d: s.rr = s.d[i - 1] if i else None
        if d.act + d.ina: s.trash[a] = d   # connections live on; added again it has its counts
        s.upd()
    def pick_rr(s):
        i = s.d.index(s.rr) + 1 if s.rr else 0
        for d in s.d[i:] + s.d[:i]:
            if d.w > 0: s.rr = d; return d
    def pick_wrr(s):
        if s.mw == 0: return None
        i = s.d.index(s.cl) if s.cl else -1; last = s.cl; lastpass = False; start = i
        while 1:
            for j in range(i + 1, len(s.d)):
                if s.d[j].w >= s.cw: s.cl = s.d[j]; return s.cl
                if s.d[j] is last and lastpass: return None
            i = -1; s.cw -= s.di
            if s.cw <= 0:
                s.cw = s.mw
                if lastpass or start < 0: return None
                lastpass = True
    def least(s, f, ok=lambda d: d.w > 0):
        best = None
        for d in s.d:
            if ok(d) and (best is None or f(d, best)): best = d
        return best
    def pick_sh(s, pkt):
        if not s.d: return None
        b, p, n = [], 0, 0
        for _ in range(256):
            b.append(s.d[p % len(s.d)]); n += 1
            if n >= b[-1].w: p += 1; n = 0
        a = 0
        for x in pkt[0].split('.'): a = a << 8 | int(x)
        key = lambda off: off + ((((pkt[1] if 'sh-port' in s.flags else 0) + a) * 0x61C88647 & 0xffffffff) >> 24) & 255
        h = key(0)
        if b[h].w > 0: return b[h]
        if 'sh-fallback' in s.flags:
            for o in range(256):
                d = b[key((o + h) % 256)]
                if d.w > 0: return d
    def pick(s, pkt):
        if s.sched == 'sh': return s.pick_sh(pkt)
        c = lambda d: d.act * 256 + d.ina
        if s.sched == 'rr': return s.pick_rr()
        if s.sched == 'wrr': return s.pick_wrr()
        if s.sched == 'lc': return s.least(lambda d, b: c(d) < c(b))
        if s.sched == 'wlc': return s.least(lambda d, b: c(b) * d.w > c(d) * b.w)
        o = lambda d: d.act + 1
        if s.sched == 'sed': return s.least(lambda d, b: o(b) * d.w > o(d) * b.w)
        if s.sched == 'nq':
            best = None
            for d in s.d:
                if d.w == 0: continue
                if d.act == 0: return d
                if best is None or o(best) * d.w > o(d) * best.w: best = d
            return best
        if s.sched == 'fo':
            best = None
            for d in s.d:
                if d.w > 0 and (best is None or d.w > best.w): best = d
            return best
        if s.sched == 'ovf':
            best = None
            for d in s.d:
                if d.w > 0 and d.act <= d.w and (best is None or d.w > best.w): best = d
            return best
        raise KeyError
stat = {}
for l in open(os.path.dirname(os.path.abspath(__file__)) + '/recorded/sched_changes.jsonl'):
    o = json.loads(l); s = None; bad = None; k = 0
    try:
        for st in o['steps']:
            if 'cmd' in st:
                w = st['cmd'].split(); g = lambda f: w[w.index(f) + 1]
                if st['rc']: continue
                if w[1] == '-A': s = S(g('-s'), g('-b').split(',') if '-b' in w else ())
                elif w[1] == '-a': s.add(g('-r'), int(g('-w')))
                elif w[1] == '-e': s.edit(g('-r'), int(g('-w')))
                elif w[1] == '-d': s.delete(g('-r'))
                elif w[1] == '-E' and g('-s') != s.sched: s.sched = g('-s'); s.flags = (); s.init()
            else:
                k += 1; d = s.pick(st['pkt']); a = d.a.split(':')[0] if d else '-'
                if a != st['to'] and bad is None: bad = f'packet {k}: kernel {st["to"]} model {a}'
                if st['to'] != '-':
                    t = next((x for x in s.d if x.a.split(':')[0] == st['to']), None)
                    if t:
                        if o['protocol'] == 'tcp': t.act += 1
                        else: t.ina += 1
                if bad: break
    except KeyError: bad = 'not modelled'
    x = stat.setdefault(o['scheduler'] + ' ' + ('same' if bad is None else 'not modelled' if bad == 'not modelled' else 'DIFFERENT'), []); x.append((o['scenario'], bad))
for k, v in stat.items():
    print(k, len(v)); 
    if 'DIFF' in k: [print('    ', *x) for x in v[:6]]
