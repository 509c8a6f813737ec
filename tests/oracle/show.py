#!/usr/bin/env python3
"""show NAME [GREP]: a recording as short text: case, what came out"""
import json, os, sys, re
P = os.path.dirname(os.path.abspath(__file__)) + '/recorded/' + sys.argv[1] + '.jsonl'; G = re.compile(sys.argv[2] if len(sys.argv) > 2 else '')
def s(t):
    t = re.sub(r'^\w{12}>(\w{12}) ', lambda m: '' if m[1] in ('02000000000b', '0200000000c1') else '(to MAC ..' + m[1][-2:] + ') ', t)
    return re.sub(r' seq 1000 ack 5000 win faf0| win faf0| opts  ?(?=data)| seq 1000 ack 0', '', t)
for l in open(P):
    o = json.loads(l)
    if 'in' not in o or not G.search(o['case']): continue
    print(o['case'], json.dumps(o['sysctl']) if 'sysctl' in o else ''); 
    if '-i' in sys.argv: print('     in', s(o['in']['text']))
    for k in ('to_client', 'to_server'):
        for f in o[k]: print('    ', '->C' if k == 'to_client' else '->R', s(f['text']))
    if not o['to_client'] + o['to_server']: print('     nothing')
