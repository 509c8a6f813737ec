#!/usr/bin/env python3
"""prints recorded/tcp_state.jsonl as matrices: next state / expiry / a(ctive) or i(nactive) / f if the packet was forwarded"""
import json, collections, os, sys
AB = dict(NONE='NO', ESTABLISHED='ES', SYN_SENT='SS', SYN_RECV='SR', FIN_WAIT='FW', TIME_WAIT='TW', CLOSE='CL', CLOSE_WAIT='CW', LAST_ACK='LA', LISTEN='LI', SYNACK='SA')
T = collections.OrderedDict()
for l in open(os.path.dirname(os.path.abspath(__file__)) + '/recorded/tcp_state.jsonl'):
    o = json.loads(l); T.setdefault((o['tag'].replace('+sync', ''), o['forward'], o['direction']), {})[o['state'] + ('' if 'sync' not in o['tag'] else '*'), o['flags']] = o
EV = ['S', 'SA', 'A', 'F', 'FA', 'R', 'RA', '']
def cell(o):
    if o['next'] is None: s = '-'
    else: s = AB[o['next']] + str(o['expires']) + ('a' if o['active'] else 'i' if o['inactive'] else '?')
    return s + ('' if (o['forwarded_to_server'] if o['direction'] == 'in' else o['sent_to_client']) else '!') + ('r' if o['direction'] == 'in' and o['sent_to_client'] else '') + ('^' if o['before'] not in (o['state'].strip('*'), None) and not (o['before'] is None and o['state'][0] == '(') else '')
for k, t in T.items():
    print(k); sts = list(dict.fromkeys(s for s, _ in t))
    print('  %-17s' % 'state', ''.join('%-9s' % (e or 'none') for e in EV))
    for s in sts: print('  %-17s' % s, ''.join('%-9s' % cell(t[s, e]) for e in EV))
